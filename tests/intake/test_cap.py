"""CAP in and out: what the shared files hold, what is refused, what is mended, what is written."""

from __future__ import annotations

import base64
import csv
import json
import resource
import time
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from services.intake import cap, cap_signature
from services.intake.cap import Alert, Area, Circle, Info, Irregularity, Named, NotCap, Reference, Resource
from tests.conftest import shared_file, shared_folder

SCHEMA = etree.RelaxNG(etree.parse(str(Path(__file__).with_name("cap12.rng"))))


def folder() -> Path:
    return shared_file("cap/expected.csv").parent


def content(name: str) -> bytes:
    raw = (folder() / name).read_bytes()
    document = json.loads(raw) if name.endswith(".cap.json") else {}
    return base64.b64decode(document["base64"]) if document.get("encoding") == "base64" else raw


def expected() -> list[dict[str, str]]:
    found = shared_folder()
    path = found / "data" / "cap" / "expected.csv" if found else None
    if path is None or not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


ROWS = expected()
FILES = sorted({row["file"] for row in ROWS})
ALERTS = [row for row in ROWS if row["identifier"] and row["has_doctype"] == "0" and "reject" not in row["note"]]
needs_data = pytest.mark.skipif(not ROWS, reason="the shared data cap is not on this machine (GOTONG_SHARED)")


def reading(row: dict[str, str]) -> cap.Reading:
    found = cap.read_document(content(row["file"])).readings[int(row["alert_no"]) - 1]
    assert isinstance(found, cap.Reading)
    return found


def figures(alert: Alert) -> dict[str, str]:
    infos = alert.infos
    areas = [area for info in infos for area in info.areas]
    first = infos[0] if infos else None
    return {
        "cap_version": alert.version,
        "identifier": alert.identifier,
        "sender": alert.sender,
        "status": alert.status,
        "msg_type": alert.msg_type,
        "scope": alert.scope,
        "n_references": str(len(alert.references)),
        "n_info": str(len(infos)),
        "languages": " ".join(info.language or "-" for info in infos),
        "event": first.event if first else "",
        "urgency": first.urgency if first else "",
        "severity": first.severity if first else "",
        "certainty": first.certainty if first else "",
        "n_areas": str(len(areas)),
        "n_circles": str(sum(len(area.circles) for area in areas)),
        "n_geocodes": str(sum(len(area.geocodes) for area in areas)),
    }


@needs_data
@pytest.mark.parametrize("row", ALERTS, ids=lambda row: f"{row['file']}:{row['alert_no']}")
def test_a_file_is_read_as_expected(row):
    found = reading(row)
    alert, noted = found.alert, found.irregularities
    mended = {i.at.rsplit("/", 1)[-1] for i in noted if i.code == "missing"}
    for name, value in figures(alert).items():
        if row[name] == "" and name in mended:
            assert value == "Unknown"
        else:
            assert value == row[name], name
    assert alert.sent == datetime.fromisoformat(row["sent"])
    if alert.infos:
        expires = alert.infos[0].expires
        assert (expires.isoformat() if expires else "") == row["expires"].replace("-00:00", "+00:00")
    areas = [area for info in alert.infos for area in info.areas]
    dropped = [i for i in noted if "/polygon" in i.at and i.code in ("polygon-empty", "polygon-open")]
    closed = [i for i in dropped if i.code == "polygon-open"]
    polygons = [ring for area in areas for ring in area.polygons]
    assert len(polygons) + len(dropped) - len(closed) == int(row["n_polygons"])
    assert sum(len(ring) for ring in polygons) - len(closed) == int(row["n_polygon_points"])
    assert len(closed) == int(row["n_open_polygons"])
    assert found.signed == (row["signed"] == "1")


@needs_data
@pytest.mark.parametrize("row", ALERTS, ids=lambda row: f"{row['file']}:{row['alert_no']}")
def test_what_we_write_is_valid_and_reads_back_equal(row):
    alert = reading(row).alert
    written = cap.write(alert)
    SCHEMA.assertValid(etree.fromstring(written))
    again = cap.read(written)
    assert [i for i in again.irregularities if i.code not in ("markup", "missing")] == []
    if row["identifier"] == "INVALID,":
        assert again.alert.identifier == "INVALID_"
    else:
        assert again.alert == alert


@needs_data
@pytest.mark.parametrize("name", FILES)
def test_no_file_is_lost_without_a_reason(name):
    rows = [row for row in ROWS if row["file"] == name]
    try:
        document = cap.read_document(content(name))
    except NotCap as refused:
        assert refused.reason
        assert rows[0]["kind"] in ("json", "schema") or rows[0]["has_doctype"] == "1" or "reject" in rows[0]["note"]
    else:
        assert document.kind == rows[0]["kind"]
        assert len(document.readings) == int(rows[0]["alerts"])


@needs_data
@pytest.mark.parametrize(
    ("name", "links"),
    [
        ("google-cap-library/weather_index.atom.xml", 2),
        ("google-cap-library/ny_index.rss.xml", 2),
        ("google-cap-library/empty_weather_index.atom.xml", 0),
        ("google-cap-library/invalid.rss.xml", 0),
        ("bmkg/rss_active.xml", 3),
    ],
)
def test_an_index_gives_its_links(name, links):
    document = cap.read_document(content(name))
    assert len([entry for entry in document.entries if entry.link]) == links


@needs_data
def test_a_feed_says_which_entries_are_incomplete():
    noted = cap.read_document(content("google-cap-library/invalid.rss.xml")).irregularities
    assert {i.detail for i in noted} == {f"the entry has no {name}" for name in ("guid", "link", "title")}


@needs_data
def test_latin_1_is_read():
    found = cap.read(content("google-cap-library/earthquake-iso8859-1.cap.json"))
    assert "\u00e1" in found.alert.infos[0].areas[0].description


@needs_data
@pytest.mark.parametrize("row", [row for row in ALERTS if row["signed"] == "1"], ids=lambda row: row["file"])
def test_signatures_are_told_good_from_bad(row):
    found = reading(row)
    result = cap_signature.check(found.raw, found.alert.sent)
    name = Path(row["file"]).name
    if "invalid" in name:
        assert result.result == "invalid"
    elif name in ("sc_valid.xml", "tg_valid.xml"):
        assert result.result == "valid"
        assert result.by is not None
    else:
        assert result.result == "weak", "it fits, but was made with SHA-1"
    assert not result.trusted


@needs_data
def test_one_changed_letter_spoils_a_signature():
    raw = content("google-cap-library/earthquake_signed.cap.xml")
    found = cap.read(raw.replace(b"<event>Earthquake</event>", b"<event>Earthquakf</event>"))
    assert cap_signature.check(found.raw, found.alert.sent).result == "invalid"


# Axis order


def message(**parts: str) -> bytes:
    """A message whose parts are given as XML; what is None is left out."""
    given: dict[str, str | None] = {
        "identifier": "<identifier>a1</identifier>",
        "sender": "<sender>post@example.org</sender>",
        "sent": "<sent>2026-11-24T09:00:00+07:00</sent>",
        "status": "<status>Actual</status>",
        "msgType": "<msgType>Alert</msgType>",
        "scope": "<scope>Public</scope>",
        "info": info(),
        **parts,
    }
    inner = "".join(part for part in given.values() if part is not None)
    return f'<alert xmlns="{cap.CAP_12}">{inner}</alert>'.encode()


def info(urgency: str = "Expected", area: str = "<areaDesc>Bandung</areaDesc>", extra: str = "", **times: str) -> str:
    stated = "".join(f"<{name}>{value}</{name}>" for name, value in times.items())
    return (
        f"<info><category>Met</category><event>Banjir</event><urgency>{urgency}</urgency><severity>Severe</severity>"
        f"<certainty>Likely</certainty>{stated}{extra}<area>{area}</area></info>"
    )


def test_lat_lon_is_turned_once():
    area = "<areaDesc>x</areaDesc><polygon>-6.3,106.8 -6.3,106.9 -6.2,106.9 -6.3,106.8</polygon><circle>-6.2,106.8 5</circle>"
    alert = cap.read(message(info=info(area=area))).alert
    [found] = alert.infos[0].areas
    assert found.polygons[0][0] == (106.8, -6.3)
    assert found.circles == (Circle(106.8, -6.2, 5.0),)
    assert b"<polygon>-6.3,106.8 " in cap.write(alert)
    assert b"<circle>-6.2,106.8 5</circle>" in cap.write(alert)


# Soft faults


def codes(raw: bytes) -> list[str]:
    return [i.code for i in cap.read(raw).irregularities]


def test_a_clean_message_has_no_irregularity():
    assert codes(message()) == []


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (message(info=info(urgency="Future ")), "blanks"),
        (message(info=info(urgency="future")), "capitals"),
        (message(info=info(urgency="")), "word"),
        (message(info=info(urgency="Soon")), "word"),
        (message(sent="<sent>2026-11-24T02:00:00Z</sent>"), "time-form"),
        (message(sent="<sent>2026-11-24T09:00:00.123+07:00</sent>"), "time-form"),
        (message(sent="<sent>2026-11-24T09:00:00</sent>"), "time-zone"),
        (message(info=info(expires="tomorrow")), "time"),
        (message(info=info(expires="2026-11-24T08:00:00+07:00")), "expires"),
        (message(info=info(extra="<description>a&lt;br/&gt;b</description>")), "markup"),
        (message(info=info(area="<areaDesc>x</areaDesc><polygon/>")), "polygon-empty"),
        (message(info=info(area="<areaDesc>x</areaDesc><polygon>1,2 1,3 2,3 2,2</polygon>")), "polygon-open"),
        (message(info=info(area="<areaDesc>x</areaDesc><polygon>106,-6 107,-6 107,-7 106,-6</polygon>")), "axes"),
        (message(info=info(area="<areaDesc>x</areaDesc><polygon>1,200 1,3 2,3 1,200</polygon>")), "range"),
        (message(info=info(area="<areaDesc>x</areaDesc><circle>1,2</circle>")), "circle-form"),
        (message(info=info(area="<areaDesc>x</areaDesc><circle>1,2 NaN</circle>")), "circle-form"),
        (message(info=info(area="")), "missing"),
        (message(msgType="<msgType>Update</msgType>"), "missing"),
        (message(scope="<scope>Restricted</scope>"), "missing"),
        (message(identifier="<identifier>a 1</identifier>"), "characters"),
        (message(x="<foreign/>"), "unknown-element"),
    ],
)  # fmt: skip
def test_a_soft_fault_is_mended_and_listed(raw, code):
    assert code in codes(raw)
    written = cap.write(cap.read(raw).alert)
    SCHEMA.assertValid(etree.fromstring(written))
    assert set(codes(written)) <= {"markup", "expires", "missing"}


@pytest.mark.parametrize("name", ["identifier", "sender", "sent", "status", "msgType", "scope"])
def test_a_message_without_what_makes_one_is_refused_with_the_place(name):
    with pytest.raises(NotCap, match=name) as refused:
        cap.read(message(**{name: None}))
    assert refused.value.pointer == f"/alert/{name}"


# Hostile input

LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE alert [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(9))
    + f']><alert xmlns="{cap.CAP_12}"><identifier>&j;</identifier></alert>'
).encode()
QUADRATIC = (
    f'<!DOCTYPE alert [<!ENTITY a "{"x" * 200_000}">]><alert xmlns="{cap.CAP_12}">{"&a;" * 200_000}</alert>'.encode()
)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(LAUGHS, id="entity-bomb"),
        pytest.param(QUADRATIC, id="quadratic"),
        pytest.param(LAUGHS.decode().replace('<?xml version="1.0"?>', "").encode("utf-16"), id="utf-16"),
        pytest.param(b'<!DOCTYPE a SYSTEM "http://127.0.0.1:1/x.dtd"><a/>', id="external-dtd"),
        pytest.param(b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', id="external-entity"),
        pytest.param(b"<a>" * 500_000, id="deep"),
        pytest.param(b"<a>" + b"<b/>" * 400_000 + b"</a>", id="full"),
        pytest.param(b"<a>" + b"<!---->" * 250_000 + b"</a>", id="comments"),
        pytest.param(b"<a " + b" ".join(b'a%d="1"' % n for n in range(100_000)) + b"/>", id="attributes"),
        pytest.param(b"<a>" + b"x" * cap.MAX_BYTES + b"</a>", id="long"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00\x01\x02", id="binary"),
        pytest.param(b'<?xml version="1.0" encoding="no-such"?><a/>', id="encoding"),
    ],
)
def test_hostile_documents_are_refused_at_once_with_flat_memory(raw):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with pytest.raises(NotCap):
        cap.read_document(raw)
    assert time.process_time() - started < 0.1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024, "KiB"


@needs_data
def test_the_external_entity_attack_is_refused_and_fetches_nothing():
    started = time.process_time()
    with pytest.raises(NotCap, match="document type"):
        cap.read_document(content("google-cap-library/xee.cap.xml"))
    assert time.process_time() - started < 0.1


def test_more_points_than_can_be_meant_are_refused():
    ring = " ".join(f"{n % 80},{n % 170}" for n in range(cap.MAX_POINTS + 1))
    with pytest.raises(NotCap, match="points"):
        cap.read(message(info=info(area=f"<areaDesc>x</areaDesc><polygon>{ring}</polygon>")))


# Any message survives being written

_texts = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), min_size=1, max_size=12
)
_maybe = st.none() | _texts
_offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_times = st.datetimes(datetime(1950, 1, 1), datetime(2200, 1, 1), timezones=_offsets).map(
    lambda t: t.replace(microsecond=0)
)
_lons, _lats = st.floats(-180, 180).map(lambda x: x + 0.0), st.floats(-90, 90).map(lambda x: x + 0.0)
_named = st.lists(st.builds(Named, _texts, _texts), max_size=2).map(tuple)
_rings = st.lists(st.tuples(_lons, _lats), min_size=3, max_size=6).map(lambda ps: (*ps, ps[0]))
_areas = st.builds(
    Area, _texts, st.lists(_rings, max_size=2).map(tuple),
    st.lists(st.builds(Circle, _lons, _lats, st.floats(0, 20_000).map(lambda x: x + 0.0)), max_size=2).map(tuple), _named,
    st.floats(0, 90_000), st.none() | st.floats(0, 90_000),
)  # fmt: skip
_infos = st.builds(
    Info,
    categories=st.lists(st.sampled_from(cap.CATEGORIES), min_size=1, max_size=3).map(tuple),
    event=_texts, urgency=st.sampled_from(cap.URGENCIES), severity=st.sampled_from(cap.SEVERITIES),
    certainty=st.sampled_from(cap.CERTAINTIES), language=st.none() | st.sampled_from(["id", "en-US"]),
    responses=st.lists(st.sampled_from(cap.RESPONSES), max_size=2).map(tuple), audience=_maybe, event_codes=_named,
    effective=st.none() | _times, onset=st.none() | _times, expires=st.none() | _times, sender_name=_maybe,
    headline=_maybe, description=_maybe, instruction=_maybe, web=st.none() | st.just("https://example.org/1"),
    contact=_maybe, parameters=_named,
    resources=st.lists(st.builds(Resource, _texts, st.just("image/png"), st.none() | st.integers(0, 10**9), st.none(), st.none() | st.just("aGFsbG8="), st.none() | st.just("da39a3ee5e6b4b0d3255bfef95601890afd80709")), max_size=2).map(tuple),
    areas=st.lists(_areas, max_size=2).map(tuple),
)  # fmt: skip
_names = st.text(st.sampled_from("abcXYZ019.:-@/"), min_size=1, max_size=20)
_alerts = st.builds(
    Alert,
    identifier=_names, sender=_names, sent=_times, status=st.sampled_from(cap.STATUSES),
    msg_type=st.sampled_from(["Alert", "Update", "Cancel"]), scope=st.just("Public"), source=_maybe, codes=st.lists(_texts, max_size=2).map(tuple),
    note=_maybe, references=st.lists(st.builds(Reference, _names, _names, _times.map(cap.time_text)), min_size=1, max_size=3).map(tuple),
    incidents=_maybe, infos=st.lists(_infos, max_size=2).map(tuple),
)  # fmt: skip


@settings(deadline=None)
@given(_alerts)
def test_every_message_reads_back_as_it_was_written(alert):
    written = cap.write(alert)
    SCHEMA.assertValid(etree.fromstring(written))
    assert cap.read(written).alert == alert


# Envelopes, signatures of our own making


def test_a_bad_message_in_an_envelope_costs_no_other():
    bad = message(scope=None).decode()
    envelope = f'<EDXLDistribution xmlns="urn:oasis:names:tc:emergency:EDXL:DE:1.0"><x>{bad}</x><x>{message().decode()}</x></EDXLDistribution>'
    first, second = cap.read_document(envelope.encode()).readings
    assert isinstance(first, cap.Refused)
    assert "scope" in first.reason
    assert isinstance(second, cap.Reading)


@pytest.fixture(scope="module")
def signer():
    """A key with a certificate of its own, and one issued by it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    start = datetime(2026, 1, 1, tzinfo=UTC)

    def make(name, issuer=None, issuer_key=None):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=365))
            .sign(issuer_key or key, hashes.SHA256())
        )
        return key, certificate

    root_key, root = make("root")
    key, certificate = make("cuaca.example.org", root, root_key)
    return key, certificate, root


def signed(raw: bytes, signer) -> bytes:
    from signxml.algorithms import SignatureConstructionMethod
    from signxml.signer import XMLSigner

    key, certificate, _ = signer
    made = XMLSigner(method=SignatureConstructionMethod.enveloped, signature_algorithm="ecdsa-sha256")
    return etree.tostring(made.sign(etree.fromstring(raw), key=key, cert=[certificate]))


def test_a_signature_is_trusted_if_its_certificate_or_the_issuer_is(signer):
    found = cap.read(signed(message(), signer))
    sent = found.alert.sent
    assert found.irregularities == ()
    assert cap_signature.check(found.raw, sent) == cap_signature.Signature("valid", "", "CN=cuaca.example.org", False)
    assert cap_signature.check(found.raw, sent, [signer[1]]).trusted
    assert cap_signature.check(found.raw, sent, [signer[2]]).trusted
    late = sent + timedelta(days=365)
    assert not cap_signature.check(found.raw, late, [signer[1]]).trusted, "it had run out when the message was sent"


def test_a_signature_stays_good_in_an_envelope(signer):
    inside = signed(message(), signer).decode()
    envelope = f'<d:EDXLDistribution xmlns:d="urn:oasis:names:tc:emergency:EDXL:DE:1.0"><d:x>{inside}</d:x></d:EDXLDistribution>'
    found = cap.read(envelope.encode())
    assert cap_signature.check(found.raw, found.alert.sent).result == "valid"


def test_a_signature_over_a_part_only_or_of_another_message_is_bad(signer):
    good = signed(message(), signer)
    other = good.replace(b">a1<", b">a2<")
    assert cap_signature.check(other, cap.read(other).alert.sent).result == "invalid"
    stolen = good[good.index(b"<ds:Signature") : good.index(b"</alert>")]
    moved = message(identifier="<identifier>b</identifier>").replace(b"</alert>", stolen + b"</alert>")
    assert cap_signature.check(moved, cap.read(moved).alert.sent).result == "invalid"


def test_an_unsigned_message_and_an_unknown_algorithm_are_told_apart(signer):
    assert cap_signature.check(message(), datetime.now(UTC)).result == "none"
    odd = signed(message(), signer).replace(b"xmldsig-more#ecdsa-sha256", b"xmldsig-more#no-such")
    assert cap_signature.check(odd, cap.read(odd).alert.sent).result == "unchecked"


def test_irregularities_are_bounded():
    noted = cap.read(message(x="<foreign/>" * 500)).irregularities
    assert len(noted) <= 51
    assert noted[-1] == Irregularity("more", "/alert", "450 more irregularities are not listed")
