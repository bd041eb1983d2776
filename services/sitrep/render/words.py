"""The report's words in both languages, and how numbers and instants are written in each."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from schemas.vocabulary import Language

ZONES = {
    "Asia/Jakarta": "WIB",
    "Asia/Pontianak": "WIB",
    "Asia/Makassar": "WITA",
    "Asia/Ujung_Pandang": "WITA",
    "Asia/Jayapura": "WIT",
}
_MONTHS_ID = "Januari|Februari|Maret|April|Mei|Juni|Juli|Agustus|September|Oktober|November|Desember"
_MONTHS_EN = "January|February|March|April|May|June|July|August|September|October|November|December"

WORDS: dict[str, tuple[str, str]] = {
    "title": ("Laporan situasi", "Situation report"),
    "drill": ("LATIHAN", "LATIHAN (drill)"),
    "all_operations": ("semua operasi yang berjalan", "all live operations"),
    "area": ("Wilayah", "Area"),
    "status": ("Status", "Status"),
    "no_status": ("belum ada penetapan", "none declared"),
    "siaga_darurat": ("siaga darurat", "emergency alert (siaga darurat)"),
    "tanggap_darurat": ("tanggap darurat", "emergency response (tanggap darurat)"),
    "transisi": ("transisi darurat ke pemulihan", "transition to recovery (transisi)"),
    "pemulihan": ("pemulihan", "recovery (pemulihan)"),
    "until": ("sampai", "until"),
    "lead": ("Penanggung jawab", "Lead"),
    "unnamed": ("belum disebut", "not named"),
    "glide": ("GLIDE", "GLIDE"),
    "hazards": ("Ancaman", "Hazards"),
    "phase": ("Fase", "Phase"),
    "closed": ("Operasi ditutup", "The operation is closed"),
    "as_of": ("Per", "As of"),
    "position": ("posisi log", "log position"),
    "empty": ("belum ada yang tercatat", "nothing recorded yet"),
    "public": (
        "Bentuk publik: angka dalam rentang tetap, tanpa lokasi.",
        "Public form: figures in fixed bands, without locations.",
    ),
    "redacted": (
        "Isi catatan ini dihapus kemudian, jadi angkanya dapat berbeda dari laporan yang dibuat saat itu",
        "Records whose content was blanked later, so that figures may differ from a report made at the time",
    ),
    "highlights": ("Sorotan", "Highlights"),
    "overview": ("Ikhtisar operasi", "Overview of operations"),
    "impact": ("Dampak kemanusiaan", "Humanitarian impact"),
    "response": ("Kebutuhan dan respons", "Needs and response"),
    "gaps": ("Kesenjangan dan kendala", "Gaps and constraints"),
    "coordination": ("Koordinasi", "Coordination"),
    "operation": ("Operasi", "Operation"),
    "reports_taken": ("laporan diterima", "reports received"),
    "reports_unlinked": ("belum terkait kejadian", "not joined to an incident yet"),
    "reports_retracted": ("ditarik kembali", "taken back"),
    "besides": ("selain itu", "besides"),
    "incidents_counted": ("kejadian", "incidents"),
    "open": ("terbuka", "open"),
    "closed_ones": ("ditutup", "closed"),
    "merged": ("digabung", "merged into others"),
    "last_24h": ("24 jam terakhir", "Last 24 hours"),
    "largest_gap": ("Kesenjangan terberat", "Most severe gap"),
    "incident": ("Kejadian", "Incident"),
    "hazard": ("Ancaman", "Hazard"),
    "severity": ("Tingkat", "Severity"),
    "evidence": ("Bukti", "Evidence"),
    "reports": ("Laporan", "Reports"),
    "people": ("Warga", "People"),
    "figure": ("Angka", "Figure"),
    "total": ("Jumlah", "Total"),
    "affected": ("terdampak", "affected"),
    "displaced": ("mengungsi", "displaced"),
    "injured": ("luka", "injured"),
    "dead": ("meninggal", "dead"),
    "missing": ("hilang", "missing"),
    "houses_heavy": ("rumah rusak berat", "houses heavily damaged"),
    "houses_moderate": ("rumah rusak sedang", "houses moderately damaged"),
    "houses_light": ("rumah rusak ringan", "houses lightly damaged"),
    "houses_flooded": ("rumah terendam", "houses flooded"),
    "houses_damaged": ("rumah rusak (tanpa rincian)", "houses damaged (degree not given)"),
    "public_facilities_damaged": ("fasilitas umum rusak", "public facilities damaged"),
    "open_by_hazard": ("Kejadian terbuka menurut ancaman", "Open incidents by hazard"),
    "open_by_severity": ("Kejadian terbuka menurut tingkat", "Open incidents by severity"),
    "by_evidence": ("Kejadian menurut bukti", "Incidents by evidence"),
    "1": ("1 ringan", "1 minor"),
    "2": ("2 sedang", "2 moderate"),
    "3": ("3 berat", "3 serious"),
    "4": ("4 mengancam jiwa", "4 life at risk"),
    "reported": ("dilaporkan", "reported"),
    "corroborated": ("dikuatkan", "corroborated"),
    "field_checked": ("diperiksa di lapangan", "checked in the field"),
    "official": ("resmi", "official"),
    "other": ("lainnya", "other"),
    "need": ("Kebutuhan", "Need"),
    "unit": ("Satuan", "Unit"),
    "needed": ("Dibutuhkan", "Needed"),
    "committed": ("Dijanjikan", "Committed"),
    "coming": ("Dalam perjalanan", "Coming"),
    "delivered": ("Tiba", "Delivered"),
    "gap": ("Kesenjangan", "Gap"),
    "no_needs": ("Belum ada kebutuhan yang ditetapkan.", "No need has been declared yet."),
    "no_gaps": ("Semua kebutuhan yang ditetapkan terjanji atau terpenuhi.", "Every declared need is promised or met."),
    "of": ("dari", "of"),
    "missing_units": ("masih kurang", "still short of"),
    "drafts": ("Kebutuhan menunggu keputusan operator", "Needs that wait for an operator"),
    "offers": ("Penawaran", "Offers"),
    "offer_made": ("menunggu jawaban", "waiting for an answer"),
    "offer_accepted": ("diterima", "accepted"),
    "offer_declined": ("ditolak", "declined"),
    "offer_expired": ("kedaluwarsa", "expired"),
    "offer_withdrawn": ("ditarik", "withdrawn"),
    "assignments": ("Penugasan", "Assignments"),
    "assignment_made": ("dijanjikan", "promised"),
    "assignment_started": ("berangkat", "on the way"),
    "assignment_arrived": ("di lokasi", "on scene"),
    "assignment_delivered": ("selesai", "done"),
    "assignment_confirmed": ("dikonfirmasi penerima", "confirmed by those served"),
    "assignment_abandoned": ("batal", "abandoned"),
    "responders": ("Penolong terdaftar", "Registered responders"),
    "responder_people": ("orang", "people"),
    "on_assignment": ("sedang bertugas", "on assignment"),
    "organisation": ("Organisasi", "Organisation"),
    "under_way": ("Berjalan", "Under way"),
    "done": ("Selesai", "Done"),
    "volunteers": ("relawan tanpa organisasi", "volunteers without an organisation"),
}


def word(key: str, lang: Language) -> str:
    """The word for this key; the key itself for one that we have no word for (a phase that an operation invents)."""
    indonesian, english = WORDS.get(key, (key, key))
    return english if lang == "en" else indonesian


def number(count: int | str, lang: Language) -> str:
    """A count with its thousands parted as the language does; a band as it is."""
    if isinstance(count, str):
        return count
    return f"{count:,}" if lang == "en" else f"{count:,}".replace(",", ".")


def local(text: str, timezone: str, lang: Language) -> str:
    """An instant in the operation's own time, named WIB, WITA or WIT; elsewhere with its distance to UTC."""
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):  # an operation may name a zone that this machine does not know
        zone, timezone = ZoneInfo("UTC"), "UTC"
    moment = datetime.fromisoformat(text).astimezone(zone)
    name = ZONES.get(timezone) or ("UTC" if timezone == "UTC" else f"UTC{moment:%z}")
    month = (_MONTHS_EN if lang == "en" else _MONTHS_ID).split("|")[moment.month - 1]
    clock = f"{moment:%H:%M:%S}" if lang == "en" else f"{moment:%H.%M.%S}"
    return f"{moment.day} {month} {moment.year} {clock} {name}"
