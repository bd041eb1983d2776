"""The report's words in both languages, and how numbers and instants are written in each."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

from babel.dates import format_datetime
from babel.numbers import format_decimal

from schemas.vocabulary import Language

ZONES = {
    "Asia/Jakarta": "WIB",
    "Asia/Pontianak": "WIB",
    "Asia/Makassar": "WITA",
    "Asia/Ujung_Pandang": "WITA",
    "Asia/Jayapura": "WIT",
}
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
    "response": ("Respons per klaster", "Response by cluster"),
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
    "counted": (
        "Setiap angka dihitung dari peristiwa yang tercatat sampai posisi ini dan selalu dapat dihitung lagi.",
        "Every figure is counted from the events recorded up to this position and can be made again at any time.",
    ),
    "protected": ("kejadian yang dilindungi", "a protected incident"),
    "no_area": ("tanpa kode wilayah", "without an area code"),
    "figure_reports": ("laporan", "reports"),
    "figure_incidents": ("kejadian", "incidents"),
    "figure_incidents_open": ("kejadian terbuka", "open incidents"),
    "figure_affected": ("terdampak", "affected"),
    "figure_displaced": ("mengungsi", "displaced"),
    "figure_injured": ("luka", "injured"),
    "figure_dead": ("meninggal", "dead"),
    "figure_missing": ("hilang", "missing"),
    "before": ("Sebelumnya", "Before"),
    "now": ("Sekarang", "Now"),
    "change": ("Perubahan", "Change"),
    "changed_since": ("Perubahan sejak", "Changed since"),
    "nothing_changed": (
        "Tidak ada angka utama yang berubah sejak laporan sebelumnya.",
        "No main figure has changed since the report before.",
    ),
    "first_report": ("Belum ada laporan sebelumnya untuk dibandingkan.", "There is no earlier report to compare with."),
    "map": ("Peta kejadian terbuka", "Map of open incidents"),
    "map_about": (
        "Tiap segi enam sekitar 36 km²; angkanya jumlah kejadian terbuka, warnanya tingkat tertinggi. Persen: "
        "kebutuhan di sana yang terjanji penuh; tepi hijau: semuanya, tepi tebal hitam: masih ada yang kurang.",
        "Each hexagon is about 36 km²; its number counts open incidents, its colour is the highest severity. Per cent: "
        "needs there that are promised in full; a green edge: all of them, a thick black one: something is lacking.",
    ),
    "side_by_side": ("Angka menurut sumber, di mana berbeda", "Figures by source, where they differ"),
    "said_official": ("pemerintah", "government"),
    "said_organisation": ("organisasi", "organisations"),
    "said_public": ("warga", "people"),
    "people_by_evidence": ("Warga menurut bukti", "People by evidence"),
    "posts": ("Pos pengungsian", "Evacuation posts"),
    "posts_open": ("dibuka", "open"),
    "posts_people": ("jiwa di pos", "people at posts"),
    "posts_uncounted": ("belum dihitung", "not counted yet"),
    "of_them": ("Di antaranya", "Of them"),
    "age": ("umur", "aged"),
    "heads_households": ("keluarga", "households"),
    "heads_female": ("perempuan", "female"),
    "heads_male": ("laki-laki", "male"),
    "heads_disability": ("penyandang disabilitas", "with a disability"),
    "heads_pregnant": ("ibu hamil", "pregnant"),
    "post": ("Pos", "Post"),
    "capacity": ("Daya tampung", "Capacity"),
    "counted_at": ("Dihitung", "Counted"),
    "not_counted": ("belum", "not yet"),
    "needs_chart": ("Kebutuhan terpenuhi, persen", "Needs met, per cent"),
    "cluster_CCM": ("Pengelolaan pengungsian (CCM)", "Camp coordination and camp management (CCM)"),
    "cluster_ERY": ("Pemulihan dini (ERY)", "Early recovery (ERY)"),
    "cluster_EDU": ("Pendidikan (EDU)", "Education (EDU)"),
    "cluster_SHL": ("Hunian dan perlengkapan rumah (SHL)", "Shelter and household items (SHL)"),
    "cluster_TEL": ("Komunikasi darurat (TEL)", "Emergency telecommunications (TEL)"),
    "cluster_FSC": ("Pangan (FSC)", "Food security (FSC)"),
    "cluster_HEA": ("Kesehatan (HEA)", "Health (HEA)"),
    "cluster_LOG": ("Logistik (LOG)", "Logistics (LOG)"),
    "cluster_NUT": ("Gizi (NUT)", "Nutrition (NUT)"),
    "cluster_PRO": ("Perlindungan (PRO)", "Protection (PRO)"),
    "cluster_WSH": ("Air, sanitasi, kebersihan (WSH)", "Water, sanitation and hygiene (WSH)"),
    "cluster_SAR": ("Pencarian dan pertolongan (SAR)", "Search and rescue (SAR)"),
    "cluster_OTH": ("Lainnya", "Other"),
    "stated": ("dinyatakan sendiri", "stated by itself"),
    "within": ("batas", "within"),
    "hours": ("jam", "h"),
    "oldest": ("terlama", "oldest"),
    "target": ("Sasaran waktu", "Target"),
    "targets": ("Sasaran waktu", "Targets"),
    "target_need": ("kebutuhan terjanji penuh", "need promised in full"),
    "target_report": ("laporan terkait kejadian", "report joined to an incident"),
    "target_draft": ("draf kebutuhan diputus", "drafted need decided"),
    "waiting": ("Menunggu", "Waiting"),
    "waiting_reports": ("Laporan menunggu dikaitkan", "Reports waiting to be joined"),
    "waiting_drafts": ("Draf kebutuhan menunggu keputusan", "Drafted needs waiting to be decided"),
    "breached": ("Lewat sasaran", "Past the target"),
    "gaps_by_area": ("Kesenjangan menurut wilayah", "Gaps by area"),
    "not_heard": ("Belum ada kabar dari", "Not heard from"),
    "all_heard": ("tidak ada: semua sudah memberi kabar", "nobody: all have sent word"),
    "overdue_1": ("penugasan lewat waktu, pelaksana diminta kabar", "assignments overdue, whoever holds them is asked"),
    "overdue_2": (
        "penugasan lewat waktu, organisasinya diminta kabar",
        "assignments overdue, their organisation is asked",
    ),
    "overdue_3": (
        "penugasan lewat waktu, petugas pengatur harus bertindak",
        "assignments overdue, the dispatcher has to act",
    ),
    "overdue_of": ("penugasan tanpa kabar", "assignments without word"),
    "silent_areas": (
        "Wilayah senyap: peringatan berlaku, laporan jauh di bawah perkiraan",
        "Silent areas: under a warning, far fewer reports than expected",
    ),
    "since": ("Sejak", "Since"),
    "expected_reports": ("Laporan diperkirakan", "Reports expected"),
    "received_reports": ("Laporan diterima", "Reports received"),
    "coverage": ("Cakupan menurut wilayah", "Coverage by area"),
    "incidents_open": ("Kejadian terbuka", "Open incidents"),
    "needs": ("Kebutuhan", "Needs"),
    "needs_met": ("Terjanji penuh", "Promised in full"),
    "sources_of": ("Peristiwa di balik angka ini", "The events behind this figure"),
}


def word(key: str, lang: Language) -> str:
    """The word for this key; the key itself for one that we have no word for (a phase that an operation invents)."""
    indonesian, english = WORDS.get(key, (key, key))
    return english if lang == "en" else indonesian


LOCALES = {"id": "id_ID", "en": "en_GB"}


def number(count: int | str, lang: Language) -> str:
    """A count with its thousands parted as the language does; a band as it is."""
    return count if isinstance(count, str) else str(format_decimal(count, locale=LOCALES[lang]))


def signed(count: int, lang: Language) -> str:
    """A change, with its sign."""
    return "0" if count == 0 else ("+" if count > 0 else "−") + number(abs(count), lang)


def local(text: str, timezone: str, lang: Language) -> str:
    """An instant in the operation's own time, named WIB, WITA or WIT; elsewhere with its distance to UTC."""
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):  # an operation may name a zone that this machine does not know
        zone, timezone = ZoneInfo("UTC"), "UTC"
    moment = datetime.fromisoformat(text).astimezone(zone)
    name = ZONES.get(timezone) or ("UTC" if timezone == "UTC" else f"UTC{moment:%z}")
    clock = "HH.mm.ss" if lang == "id" else "HH:mm:ss"
    return f"{format_datetime(moment, f'd MMMM y {clock}', locale=LOCALES[lang])} {name}"
