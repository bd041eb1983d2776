"""Reads and writes warnings in the Common Alerting Protocol: CAP 1.1 and 1.2 in, strict CAP 1.2 out.

Pure: bytes in, values out. Here, and only here, CAP's `lat,lon` is turned; everything else has lon before lat. What a
sender got wrong is mended where its meaning is clear, and listed; only what leaves no message (no identifier, no scope)
is refused. Envelopes (EDXL-DE, Atom, RSS) are opened.

Source: OASIS Common Alerting Protocol 1.2 (2010), with the faults of real feeds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from xml.parsers import expat

from lxml import etree

CAP_12 = "urn:oasis:names:tc:emergency:cap:1.2"
CAP_11 = "urn:oasis:names:tc:emergency:cap:1.1"
_VERSIONS: dict[str, Literal["1.1", "1.2"]] = {CAP_11: "1.1", CAP_12: "1.2"}
DSIG = "http://www.w3.org/2000/09/xmldsig#"
_ATOM = "http://www.w3.org/2005/Atom"

MAX_BYTES = 2 * 1024 * 1024
"""A message, or a feed with its messages, is at most so long."""
MAX_DEPTH = 32
MAX_ELEMENTS = 25_000
MAX_POINTS = 20_000
"""So many points of polygons one message may have."""
_MOST_LISTED = 50
_CHUNK = 32 * 1024
_LONGEST_TAG = 128 * 1024

STATUSES = ("Actual", "Exercise", "System", "Test", "Draft")
MSG_TYPES = ("Alert", "Update", "Cancel", "Ack", "Error")
SCOPES = ("Public", "Restricted", "Private")
CATEGORIES = (
    "Geo", "Met", "Safety", "Security", "Rescue", "Fire", "Health", "Env", "Transport", "Infra", "CBRNE", "Other",
)  # fmt: skip
RESPONSES = ("Shelter", "Evacuate", "Prepare", "Execute", "Avoid", "Monitor", "Assess", "AllClear", "None")
URGENCIES = ("Immediate", "Expected", "Future", "Past", "Unknown")
SEVERITIES = ("Extreme", "Severe", "Moderate", "Minor", "Unknown")
CERTAINTIES = ("Observed", "Likely", "Possible", "Unlikely", "Unknown")
_OLD_WORDS = {"very likely": "Likely"}  # CAP 1.0
NOT_STATED = "not stated"

Point = tuple[float, float]
"""lon, lat."""


class NotCap(Exception):
    """This is no CAP message, or nothing that one can be made of; `pointer` says where."""

    def __init__(self, reason: str, pointer: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.pointer = pointer


@dataclass(frozen=True, slots=True)
class Irregularity:
    """What a message got wrong and what was made of it. `at` is the element, for example `/alert/info[2]/urgency`."""

    code: str
    at: str
    detail: str


@dataclass(frozen=True, slots=True)
class Named:
    """A value with the name of its list: an event code, a parameter, a geocode."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Reference:
    """Another message, as this one names it. `sent` is text: it is matched, never reckoned with."""

    sender: str
    identifier: str
    sent: str


@dataclass(frozen=True, slots=True)
class Circle:
    """Radius 0: no more is known than the point."""

    lon: float
    lat: float
    radius_km: float


@dataclass(frozen=True, slots=True)
class Resource:
    """A file that belongs to the warning. `size` in bytes; `digest` is the SHA-1 in hexadecimal."""

    description: str
    mime_type: str
    size: int | None = None
    uri: str | None = None
    deref_uri: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Area:
    """Where. Each polygon is one ring of (lon, lat), its last point the first; altitudes in feet above the sea."""

    description: str
    polygons: tuple[tuple[Point, ...], ...] = ()
    circles: tuple[Circle, ...] = ()
    geocodes: tuple[Named, ...] = ()
    altitude: float | None = None
    ceiling: float | None = None


@dataclass(frozen=True, slots=True)
class Info:
    """What is said in one language. `language` None: not stated, which stands for en-US."""

    categories: tuple[str, ...]
    event: str
    urgency: str
    severity: str
    certainty: str
    language: str | None = None
    responses: tuple[str, ...] = ()
    audience: str | None = None
    event_codes: tuple[Named, ...] = ()
    effective: datetime | None = None
    onset: datetime | None = None
    expires: datetime | None = None
    sender_name: str | None = None
    headline: str | None = None
    description: str | None = None
    instruction: str | None = None
    web: str | None = None
    contact: str | None = None
    parameters: tuple[Named, ...] = ()
    resources: tuple[Resource, ...] = ()
    areas: tuple[Area, ...] = ()


@dataclass(frozen=True, slots=True)
class Alert:
    """One CAP message. Two are equal when they say the same, whichever version they were written in."""

    identifier: str
    sender: str
    sent: datetime
    status: str
    msg_type: str
    scope: str
    source: str | None = None
    restriction: str | None = None
    addresses: str | None = None
    codes: tuple[str, ...] = ()
    note: str | None = None
    references: tuple[Reference, ...] = ()
    incidents: str | None = None
    infos: tuple[Info, ...] = ()
    version: str = field(default="1.2", compare=False)


@dataclass(frozen=True, slots=True)
class Reading:
    """A message that was read. `raw` is its document as it came; out of an envelope, its own part of it.

    `signed`: it carries an XML signature, good or not.
    """

    alert: Alert
    irregularities: tuple[Irregularity, ...]
    raw: bytes
    signed: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A message in an envelope of which nothing could be made."""

    reason: str
    at: str
    raw: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of an index feed: where its message can be fetched. `guid` tells it from others and from its past."""

    guid: str
    link: str | None
    title: str | None


@dataclass(frozen=True, slots=True)
class Document:
    """What came: one message, or an envelope or feed with any number of them and links to others."""

    kind: Literal["cap", "edxl-de", "atom", "rss"]
    readings: tuple[Reading | Refused, ...]
    entries: tuple[Entry, ...] = ()
    irregularities: tuple[Irregularity, ...] = ()


# Reading


def read(raw: bytes) -> Reading:
    """The one message in this document, whether bare or in an envelope.

    Raises
    ------
    NotCap
        It is not XML, is hostile or too large, holds no message or several, or one without what makes a message.
    """
    document = read_document(raw)
    if len(document.readings) != 1:
        raise NotCap(f"the document holds {len(document.readings)} messages; one was expected")
    [reading] = document.readings
    if isinstance(reading, Refused):
        raise NotCap(reading.reason, reading.at)
    return reading


def read_document(raw: bytes) -> Document:
    """All messages in this document.

    Raises
    ------
    NotCap
        It is not XML, is hostile or too large, or is neither CAP nor an envelope of it.
    """
    root = tree_of(raw)
    if _namespace(root) in _VERSIONS and _local(root) == "alert":
        return Document("cap", (_reading(root, raw),))
    kind = _kind(root)
    if kind is None:
        raise NotCap(
            f"the document is no CAP message but <{_local(root)}> of {_namespace(root) or 'no namespace'}", "/"
        )
    noted: list[Irregularity] = []
    entries = tuple(_entries(root, kind, noted))
    return Document(kind, tuple(_enclosed(root, kind, noted)), entries, tuple(noted[:_MOST_LISTED]))


def tree_of(raw: bytes) -> etree._Element:
    """The document as a tree, fetched from nowhere and with nothing expanded.

    Raises
    ------
    NotCap
        It is not XML, has a document type, or is too long, too deep or too full.
    """
    if len(raw) > MAX_BYTES:
        raise NotCap(f"the document has {len(raw)} bytes; at most {MAX_BYTES} are read")
    _look_over(raw)
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False, recover=False
    )
    try:
        root = etree.fromstring(raw, parser)
    except (etree.XMLSyntaxError, ValueError, LookupError) as error:
        raise NotCap(f"the document is no XML: {error}") from None
    if root.getroottree().docinfo.doctype:
        raise NotCap(_DOCTYPE)
    return root


_DOCTYPE = "the document has a document type, which could declare entities: nothing that has one is read"


class _Stop(Exception):
    """Raised out of a handler to end the look-over."""


def _look_over(raw: bytes) -> None:
    """Refuse hostile documents before a tree is made of them: this reader stops at the first sign and holds nothing."""
    parser = expat.ParserCreate()
    depth = elements = 0

    def doctype(*_: object) -> None:
        raise _Stop(_DOCTYPE)

    def start(_: str, attributes: dict[str, str]) -> None:
        nonlocal depth, elements
        depth += 1
        elements += 1 + len(attributes)
        if depth > MAX_DEPTH:
            raise _Stop(f"the document is nested deeper than {MAX_DEPTH} elements")
        if elements > MAX_ELEMENTS:
            raise _Stop(f"the document has more than {MAX_ELEMENTS} elements")

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    def other(*_: object) -> None:
        nonlocal elements
        elements += 1
        if elements > MAX_ELEMENTS:
            raise _Stop(f"the document has more than {MAX_ELEMENTS} elements and comments")

    parser.StartDoctypeDeclHandler = doctype
    parser.CommentHandler = other
    parser.ProcessingInstructionHandler = other
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    try:
        for start_at in range(0, len(raw), _CHUNK):
            parser.Parse(raw[start_at : start_at + _CHUNK], False)
            # A tag is held until it ends, with all its attributes.
            if start_at + _CHUNK - max(0, parser.CurrentByteIndex) > _LONGEST_TAG:
                raise _Stop(f"the document has a tag or comment of more than {_LONGEST_TAG} bytes")
        parser.Parse(b"", True)
    except _Stop as stop:
        raise NotCap(str(stop)) from None
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise NotCap(f"the document is no XML: {error}") from None


def _local(element: etree._Element) -> str:
    return str(etree.QName(element).localname)


def _namespace(element: etree._Element) -> str:
    return etree.QName(element).namespace or ""


def _elements(element: etree._Element) -> Iterator[etree._Element]:
    """Its child elements, without comments and processing instructions."""
    return (child for child in element if isinstance(child.tag, str))


def _kind(root: etree._Element) -> Literal["edxl-de", "atom", "rss"] | None:
    name, namespace = _local(root), _namespace(root)
    if name == "EDXLDistribution":
        return "edxl-de"
    if name == "feed" and namespace == _ATOM:
        return "atom"
    return "rss" if name in ("rss", "RDF") else None


def _enclosed(root: etree._Element, kind: str, noted: list[Irregularity]) -> Iterator[Reading | Refused]:
    for namespace in _VERSIONS:
        for alert in root.iter(f"{{{namespace}}}alert"):
            found: tuple[Irregularity, ...] = ()
            if kind == "atom" and not any(_local(a) == "entry" for a in alert.iterancestors()):
                found = (Irregularity("outside-entry", "/alert", "the message stands outside any entry of the feed"),)
                noted.extend(found)
            raw = _by_itself(alert)
            try:
                yield _reading(alert, raw, found)
            except NotCap as fault:
                yield Refused(fault.reason, fault.pointer, raw)


def _by_itself(element: etree._Element) -> bytes:
    """An element as a document of its own, without the namespaces that only its envelope uses.

    A message is signed before it is put into an envelope: what the envelope declares would spoil the signature.
    """
    own: bytes = etree.tostring(element, encoding="utf-8", with_tail=False)
    alone = etree.fromstring(own, etree.XMLParser(resolve_entities=False, no_network=True))
    inherited = set(element.getparent().nsmap) - {p for p, n in element.nsmap.items() if n == _namespace(element)}
    if inherited:
        etree.cleanup_namespaces(alone)
    content: bytes = etree.tostring(alone, encoding="utf-8", xml_declaration=True)
    return content


def _entries(root: etree._Element, kind: str, noted: list[Irregularity]) -> Iterator[Entry]:
    """The entries of a feed that link to a message; those that hold one have no need of being fetched."""
    wanted = {"atom": "entry", "rss": "item"}.get(kind)
    if wanted is None:
        return
    for number, entry in enumerate((e for e in root.iter() if isinstance(e.tag, str) and _local(e) == wanted), start=1):
        at = f"/{wanted}[{number}]"
        if any(_local(e) == "alert" and _namespace(e) in _VERSIONS for e in entry.iter() if isinstance(e.tag, str)):
            continue
        told: dict[str, str | None] = {_local(child): _clean(child.text) for child in reversed(list(_elements(entry)))}
        link = _link(entry)
        guid = told.get("guid") or told.get("id") or link
        for name, there in (("guid" if kind == "rss" else "id", guid), ("link", link), ("title", told.get("title"))):
            if not there:
                noted.append(Irregularity("entry-incomplete", at, f"the entry has no {name}"))
        if guid:
            # An entry that says it was updated is another one: Atom keeps its id.
            changed = told.get("updated") or told.get("pubDate")
            yield Entry(f"{guid} {changed}" if changed else guid, link, told.get("title"))


_LINK_TYPES = ("application/cap+xml", "application/common-alerting-protocol+xml", "application/xml", "text/xml")


def _link(entry: etree._Element) -> str | None:
    """Where an entry's message is: a link that says it is CAP goes before any other."""
    found: list[tuple[int, str]] = []
    for child in _elements(entry):
        if _local(child) == "link":
            target = _clean(child.get("href")) or _clean(child.text)
            kind = (child.get("type") or "").partition(";")[0].strip()
            if target and child.get("rel", "alternate") in ("alternate", "enclosure", "via"):
                found.append((_LINK_TYPES.index(kind) if kind in _LINK_TYPES else len(_LINK_TYPES), target))
        elif _local(child) == "enclosure" and _clean(child.get("url")):
            found.append((len(_LINK_TYPES) + 1, str(child.get("url")).strip()))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def _clean(text: str | None) -> str | None:
    """The text without blanks around it; None for nothing."""
    return (text or "").strip() or None


class _Notes:
    """Collects what was irregular, up to a limit: a hostile document must not fill the database with complaints."""

    def __init__(self, found: Iterable[Irregularity] = ()) -> None:
        self.found = list(found)
        self.more = 0

    def add(self, code: str, at: str, detail: str) -> None:
        if len(self.found) < _MOST_LISTED:
            self.found.append(Irregularity(code, at, detail))
        else:
            self.more += 1

    def all(self) -> tuple[Irregularity, ...]:
        if self.more:
            return (*self.found, Irregularity("more", "/alert", f"{self.more} more irregularities are not listed"))
        return tuple(self.found)


_ALERT = (
    "identifier", "sender", "sent", "status", "msgType", "source", "scope", "restriction", "addresses", "code", "note",
    "references", "incidents", "info",
)  # fmt: skip
_INFO = (
    "language", "category", "event", "responseType", "urgency", "severity", "certainty", "audience", "eventCode",
    "effective", "onset", "expires", "senderName", "headline", "description", "instruction", "web", "contact",
    "parameter", "resource", "area",
)  # fmt: skip
_RESOURCE = ("resourceDesc", "mimeType", "size", "uri", "derefUri", "digest")
_AREA = ("areaDesc", "polygon", "circle", "geocode", "altitude", "ceiling")
_NAMED = ("valueName", "value")
_MANY = {
    "code", "info", "category", "responseType", "eventCode", "parameter", "resource", "area", "polygon", "circle",
    "geocode",
}  # fmt: skip


class _Part:
    """The children of one element of a message, found by name."""

    def __init__(self, element: etree._Element, at: str, order: Sequence[str], notes: _Notes, names: str) -> None:
        self.at = at
        self.notes = notes
        self.children: dict[str, list[etree._Element]] = {}
        place = 0
        for child in _elements(element):
            name = _local(child)
            if _namespace(child) == DSIG:
                continue
            # An alert inside an envelope may have children in no namespace at all; that is a fault, not foreign text.
            if name not in order or _namespace(child) not in (names, ""):
                notes.add("unknown-element", at, f"<{name[:60]}> is not of CAP and was left out")
                continue
            if order.index(name) < place:
                notes.add("order", f"{at}/{name}", "the element is out of its order")
            place = max(place, order.index(name))
            self.children.setdefault(name, []).append(child)
        for name, children in self.children.items():
            if len(children) > 1 and name not in _MANY:
                notes.add("repeated", f"{at}/{name}", f"it stands {len(children)} times; the first counts")

    def all(self, name: str) -> list[tuple[str, etree._Element]]:
        children = self.children.get(name, [])
        return [(f"{self.at}/{name}[{n}]", child) for n, child in enumerate(children, start=1)]

    def text(self, name: str) -> str | None:
        """Its text without blanks around it; None where it is missing or empty."""
        children = self.children.get(name)
        if not children:
            return None
        found = _clean("".join(children[0].itertext(with_tail=True)) if len(children[0]) else children[0].text)
        if found is None and name in _NOT_EMPTY:
            self.notes.add("empty", f"{self.at}/{name}", "the element is empty and was left out")
        return found

    def texts(self, name: str) -> list[tuple[str, str]]:
        return [(at, (child.text or "").strip()) for at, child in self.all(name)]

    def word(self, name: str, known: Sequence[str]) -> str | None:
        """One of the known words, blanks and capitals mended; None where it is missing or is none of them."""
        children = self.children.get(name)
        if not children:
            return None
        return _word(children[0].text or "", known, f"{self.at}/{name}", self.notes)

    def words(self, name: str, known: Sequence[str]) -> tuple[str, ...]:
        found = []
        for at, child in self.all(name):
            word = _word(child.text or "", known, at, self.notes)
            if word is not None:
                found.append(word)
        return tuple(found)

    def time(self, name: str) -> datetime | None:
        text = self.text(name)
        return None if text is None else _time(text, f"{self.at}/{name}", self.notes)

    def named(self, name: str, names: str) -> tuple[Named, ...]:
        found = []
        for at, child in self.all(name):
            part = _Part(child, at, _NAMED, self.notes, names)
            label, value = part.text("valueName"), part.text("value")
            if label is None and value is None:
                self.notes.add("empty", at, "neither a name nor a value; it was left out")
                continue
            if label is None:
                self.notes.add("missing", f"{at}/valueName", "the value has no name")
            found.append(Named(label or NOT_STATED, value or ""))
        return tuple(found)


_NOT_EMPTY = {"references", "sent", "effective", "onset", "expires", "language", "size", "uri"}


def _word(text: str, known: Sequence[str], at: str, notes: _Notes) -> str | None:
    if text in known:
        return text
    bare = text.strip()
    if bare in known:
        notes.add("blanks", at, "blanks around the word were taken off")
        return bare
    folded = bare.casefold()
    for word in known:
        if word.casefold() == folded:
            notes.add("capitals", at, f"{bare!r} was read as {word}")
            return word
    if _OLD_WORDS.get(folded) in known:
        notes.add("old-word", at, f"{bare!r} was read as {_OLD_WORDS[folded]}")
        return _OLD_WORDS[folded]
    notes.add("word", at, f"{bare[:60]!r} is none of {', '.join(known)}" if bare else "the element is empty")
    return None


_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d")


def _time(text: str, at: str, notes: _Notes) -> datetime | None:
    """The instant in its own zone, without a fraction of the second, which CAP has no place for."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        notes.add("time", at, f"{text[:40]!r} is no time; it was left out")
        return None
    if not 1900 <= found.year <= 9000:
        notes.add("time", at, f"{text[:40]!r} is no time that can be meant; it was left out")
        return None
    if found.tzinfo is None:
        notes.add("time-zone", at, "the time has no zone and was taken for UTC")
        found = found.replace(tzinfo=UTC)
    elif not _TIME.fullmatch(text):
        notes.add("time-form", at, f"{text[:40]!r} is not written YYYY-MM-DDThh:mm:ss±hh:mm")
    offset = found.utcoffset() or timedelta()
    if offset.total_seconds() % 60 or abs(offset) > timedelta(hours=14):
        found = found.astimezone(UTC)
    return found.replace(microsecond=0)


def instant(text: str) -> datetime | None:
    """The instant of a time in a reference, however it is written; None where it is none."""
    return _time(text, "", _Notes())


def _reading(element: etree._Element, raw: bytes, found: tuple[Irregularity, ...] = ()) -> Reading:
    notes = _Notes(found)
    alert = _alert(element, notes)
    signed = element.find(f"{{{DSIG}}}Signature") is not None
    return Reading(alert, notes.all(), raw, signed)


def _required(part: _Part, name: str, value: Any) -> Any:
    if value is None:
        there = name in part.children
        raise NotCap(
            f"{name} is {'not readable' if there else 'missing'}, without which it is no CAP message",
            f"{part.at}/{name}",
        )
    return value


def _alert(element: etree._Element, notes: _Notes) -> Alert:
    names = _namespace(element)
    part = _Part(element, "/alert", _ALERT, notes, names)
    identifier = _required(part, "identifier", part.text("identifier"))
    sender = _required(part, "sender", part.text("sender"))
    for name, value in (("identifier", identifier), ("sender", sender)):
        if _UNFIT.search(value):
            notes.add("characters", f"/alert/{name}", "it holds a blank, comma, < or &, so no message can refer to it")
        if len(value) > 500:
            raise NotCap(f"{name} has more than 500 characters", f"/alert/{name}")
    sent = _required(part, "sent", part.time("sent"))
    status = _required(part, "status", part.word("status", STATUSES))
    msg_type = _required(part, "msgType", part.word("msgType", MSG_TYPES))
    scope = _required(part, "scope", part.word("scope", SCOPES))
    restriction, addresses = part.text("restriction"), part.text("addresses")
    references = tuple(_references(part.text("references"), notes))
    if scope == "Restricted" and restriction is None:
        notes.add("missing", "/alert/restriction", "the scope is Restricted, and it is not said to whom")
        restriction = NOT_STATED
    if scope == "Private" and addresses is None:
        notes.add("missing", "/alert/addresses", "the scope is Private, and it is not said for whom")
        addresses = NOT_STATED
    if msg_type not in ("Alert",) and not references:
        notes.add("missing", "/alert/references", f"{msg_type} refers to no other message")
    if msg_type == "Error" and part.text("note") is None:
        notes.add("missing", "/alert/note", "an Error is explained in the note")
    budget = [MAX_POINTS]
    return Alert(
        identifier=identifier,
        sender=sender,
        sent=sent,
        status=status,
        msg_type=msg_type,
        scope=scope,
        source=part.text("source"),
        restriction=restriction,
        addresses=addresses,
        codes=tuple(text for _, text in part.texts("code") if text),
        note=part.text("note"),
        references=references,
        incidents=part.text("incidents"),
        infos=tuple(_info(child, at, names, sent, budget, notes) for at, child in part.all("info")),
        version=_VERSIONS[names],
    )


_UNFIT = re.compile(r"[\s,<&]")


def _references(text: str | None, notes: _Notes) -> Iterator[Reference]:
    for said in (text or "").split()[:1000]:
        pieces = said.split(",")
        if len(pieces) == 3 and all(pieces):
            if _TIME.fullmatch(pieces[2]) is None:
                notes.add("time-form", "/alert/references", f"{pieces[2][:40]!r} is not written as CAP writes times")
            yield Reference(*pieces)
        elif len(pieces) > 3 and all(pieces):  # a comma in the identifier, which it may not hold
            notes.add("reference", "/alert/references", f"{said[:80]!r} has more than sender, identifier and time")
            yield Reference(pieces[0], ",".join(pieces[1:-1]), pieces[-1])
        else:
            notes.add("reference", "/alert/references", f"{said[:80]!r} is not sender,identifier,sent; it was left out")


_MARKUP = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")


def _info(element: etree._Element, at: str, names: str, sent: datetime, budget: list[int], notes: _Notes) -> Info:
    part = _Part(element, at, _INFO, notes, names)
    categories = part.words("category", CATEGORIES)
    if not categories:
        notes.add("missing", f"{at}/category", "no category; Other was taken")
        categories = ("Other",)
    graded = {}
    for name, known in (("urgency", URGENCIES), ("severity", SEVERITIES), ("certainty", CERTAINTIES)):
        word = part.word(name, known)
        if word is None:
            notes.add("missing", f"{at}/{name}", f"no {name}; Unknown was taken")
        graded[name] = word or "Unknown"
    event = part.text("event")
    if event is None:
        event = part.text("headline") or categories[0]
        notes.add("missing", f"{at}/event", "no event; the headline or the category was taken")
    effective, onset, expires = part.time("effective"), part.time("onset"), part.time("expires")
    if expires is not None and expires <= (effective or sent):
        notes.add("expires", f"{at}/expires", "it expires before it begins")
    for name in ("headline", "description", "instruction"):
        if _MARKUP.search(part.text(name) or ""):
            notes.add("markup", f"{at}/{name}", "the text holds HTML")
    return Info(
        language=part.text("language"),
        categories=categories,
        event=event,
        responses=part.words("responseType", RESPONSES),
        urgency=graded["urgency"],
        severity=graded["severity"],
        certainty=graded["certainty"],
        audience=part.text("audience"),
        event_codes=part.named("eventCode", names),
        effective=effective,
        onset=onset,
        expires=expires,
        sender_name=part.text("senderName"),
        headline=part.text("headline"),
        description=part.text("description"),
        instruction=part.text("instruction"),
        web=part.text("web"),
        contact=part.text("contact"),
        parameters=part.named("parameter", names),
        resources=tuple(_resource(child, where, names, notes) for where, child in part.all("resource")),
        areas=tuple(_area(child, where, names, budget, notes) for where, child in part.all("area")),
    )


def _resource(element: etree._Element, at: str, names: str, notes: _Notes) -> Resource:
    part = _Part(element, at, _RESOURCE, notes, names)
    size = part.text("size")
    if size is not None and not re.fullmatch(r"[0-9]{1,18}", size):
        notes.add("number", f"{at}/size", f"{size[:40]!r} is no size in bytes; it was left out")
        size = None
    description, mime_type = part.text("resourceDesc"), part.text("mimeType")
    if description is None:
        notes.add("missing", f"{at}/resourceDesc", "the resource is not described")
    if mime_type is None:
        # CAP 1.1 allowed this.
        notes.add("missing", f"{at}/mimeType", "no type of content; application/octet-stream was taken")
    return Resource(
        description or NOT_STATED,
        mime_type or "application/octet-stream",
        int(size) if size is not None else None,
        part.text("uri"),
        part.text("derefUri"),
        part.text("digest"),
    )


def _area(element: etree._Element, at: str, names: str, budget: list[int], notes: _Notes) -> Area:
    part = _Part(element, at, _AREA, notes, names)
    description = part.text("areaDesc")
    if description is None:
        notes.add("missing", f"{at}/areaDesc", "the area has no description")
    polygons = [_polygon(text, where, budget, notes) for where, text in part.texts("polygon")]
    circles = [_circle(text, where, notes) for where, text in part.texts("circle")]
    altitude, ceiling = _height(part, "altitude"), _height(part, "ceiling")
    if ceiling is not None and altitude is None:
        notes.add("missing", f"{at}/altitude", "a ceiling without an altitude; it was left out")
        ceiling = None
    return Area(
        description or NOT_STATED,
        tuple(ring for ring in polygons if ring is not None),
        tuple(circle for circle in circles if circle is not None),
        part.named("geocode", names),
        altitude,
        ceiling,
    )


_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,340})?(?:[eE][+-]?[0-9]{1,2})?")


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) else None


def _height(part: _Part, name: str) -> float | None:
    text = part.text(name)
    if text is None:
        return None
    value = _number(text)
    if value is None:
        part.notes.add("number", f"{part.at}/{name}", f"{text[:40]!r} is no number; it was left out")
    return value


def _pair(text: str) -> tuple[float, float] | None:
    """The two numbers in `first,second`, also with a comma too many."""
    pieces = text.strip(",").split(",")
    if len(pieces) != 2:
        return None
    first, second = _number(pieces[0]), _number(pieces[1])
    return None if first is None or second is None else (first, second)


def _polygon(text: str, at: str, budget: list[int], notes: _Notes) -> tuple[Point, ...] | None:
    """The ring of a polygon, closed; None where none can be made of it."""
    if not text:
        notes.add("polygon-empty", at, "the polygon is empty and was left out")
        return None
    said = re.sub(r"\s*,\s+(?=[+-]?\d)|\s+,\s*(?=[+-]?\d)", ",", text).split() if ", " in text else text.split()
    pairs = [_pair(piece) for piece in said]
    if any(pair is None for pair in pairs):
        said = text.split()
        pairs = [_pair(piece) for piece in said]
    budget[0] -= len(pairs)
    if budget[0] < 0:
        raise NotCap(f"the message has more than {MAX_POINTS} points", at)
    if any(piece != piece.strip(",") for piece in said):
        notes.add("polygon-form", at, "points are written as lat,lon without further commas")
    whole = [pair for pair in pairs if pair is not None]
    if len(whole) < len(pairs):
        notes.add("polygon-form", at, f"{len(pairs) - len(whole)} of its points cannot be read; it was left out")
        return None
    points = _turned(whole, at, notes)
    if points is None:
        return None
    if points[0] != points[-1]:
        notes.add("polygon-open", at, "its last point is not its first; it was closed")
        points.append(points[0])
    if len(points) < 4:
        notes.add("polygon-form", at, "it has fewer than four points and was left out")
        return None
    return tuple(points)


def _turned(pairs: Sequence[tuple[float, float]], at: str, notes: _Notes) -> list[Point] | None:
    """CAP's lat,lon as (lon, lat). Pairs that can only be lon,lat are told of and taken as that."""
    if all(abs(lat) <= 90 and abs(lon) <= 180 for lat, lon in pairs):
        return [(lon + 0.0, lat + 0.0) for lat, lon in pairs]
    if all(abs(lat) <= 90 and abs(lon) <= 180 for lon, lat in pairs) and all(abs(lon) > 90 for lon, _ in pairs):
        notes.add("axes", at, "longitude stands before latitude; it was turned")
        return [(lon + 0.0, lat + 0.0) for lon, lat in pairs]
    notes.add("range", at, "it holds a latitude beyond 90 or a longitude beyond 180 degrees; it was left out")
    return None


def _circle(text: str, at: str, notes: _Notes) -> Circle | None:
    pieces = re.sub(r"\s*,\s*", ",", text).split()
    centre = _pair(pieces[0]) if pieces else None
    radius = _number(pieces[1]) if len(pieces) == 2 else None
    if not text:
        notes.add("circle-empty", at, "the circle is empty and was left out")
        return None
    if centre is None or radius is None or radius < 0:
        notes.add("circle-form", at, f"{text[:60]!r} is not `lat,lon radius`; it was left out")
        return None
    points = _turned([centre], at, notes)
    if points is None:
        return None
    if radius > 20_003:
        notes.add("range", at, "the radius is more than half the earth's girth; it was left out")
        return None
    [(lon, lat)] = points
    return Circle(lon, lat, radius)


# Writing


def write(alert: Alert) -> bytes:
    """The message as strict CAP 1.2: read again, it is equal and has no irregularity that the rules of CAP know.

    What CAP forbids in an identifier or sender becomes `_`. A signature is not carried over: it was made over other
    bytes.
    """
    root = etree.Element(f"{{{CAP_12}}}alert", nsmap={None: CAP_12})
    put = _putter(root)
    put("identifier", _UNFIT.sub("_", alert.identifier))
    put("sender", _UNFIT.sub("_", alert.sender))
    put("sent", time_text(alert.sent))
    put("status", alert.status)
    put("msgType", alert.msg_type)
    put("source", alert.source)
    put("scope", alert.scope)
    put("restriction", alert.restriction)
    put("addresses", alert.addresses)
    for code in alert.codes:
        put("code", code)
    put("note", alert.note)
    put("references", " ".join(_reference_text(reference) for reference in alert.references) or None)
    put("incidents", alert.incidents)
    for info in alert.infos:
        _write_info(etree.SubElement(root, f"{{{CAP_12}}}info"), info)
    content: bytes = etree.tostring(root, encoding="utf-8", xml_declaration=True, pretty_print=True)
    return content


def time_text(at: datetime) -> str:
    """A time as CAP writes it; UTC is `-00:00`."""
    text = at.replace(microsecond=0).isoformat()
    return f"{text[:-6]}-00:00" if text.endswith("+00:00") else text


def _reference_text(reference: Reference) -> str:
    sent = reference.sent
    if _TIME.fullmatch(sent) is None:
        at = instant(sent)
        sent = time_text(at) if at is not None else sent
    return ",".join(_UNFIT.sub("_", part) for part in (reference.sender, reference.identifier)) + f",{sent}"


def _putter(element: etree._Element) -> Callable[[str, str | None], None]:
    def put(name: str, text: str | None) -> None:
        if text is not None:
            etree.SubElement(element, f"{{{CAP_12}}}{name}").text = text

    return put


def _put_named(element: etree._Element, name: str, values: Sequence[Named]) -> None:
    for value in values:
        put = _putter(etree.SubElement(element, f"{{{CAP_12}}}{name}"))
        put("valueName", value.name)
        put("value", value.value)


def _write_info(element: etree._Element, info: Info) -> None:
    put = _putter(element)
    put("language", info.language)
    for category in info.categories:
        put("category", category)
    put("event", info.event)
    for response in info.responses:
        put("responseType", response)
    put("urgency", info.urgency)
    put("severity", info.severity)
    put("certainty", info.certainty)
    put("audience", info.audience)
    _put_named(element, "eventCode", info.event_codes)
    for name, at in (("effective", info.effective), ("onset", info.onset), ("expires", info.expires)):
        put(name, time_text(at) if at is not None else None)
    put("senderName", info.sender_name)
    put("headline", info.headline)
    put("description", info.description)
    put("instruction", info.instruction)
    put("web", info.web)
    put("contact", info.contact)
    _put_named(element, "parameter", info.parameters)
    for resource in info.resources:
        put_in = _putter(etree.SubElement(element, f"{{{CAP_12}}}resource"))
        put_in("resourceDesc", resource.description)
        put_in("mimeType", resource.mime_type)
        put_in("size", str(resource.size) if resource.size is not None else None)
        put_in("uri", resource.uri)
        put_in("derefUri", resource.deref_uri)
        put_in("digest", resource.digest)
    for area in info.areas:
        inner = etree.SubElement(element, f"{{{CAP_12}}}area")
        put_in = _putter(inner)
        put_in("areaDesc", area.description)
        for ring in area.polygons:
            put_in("polygon", " ".join(f"{_digits(lat)},{_digits(lon)}" for lon, lat in ring))
        for circle in area.circles:
            put_in("circle", f"{_digits(circle.lat)},{_digits(circle.lon)} {_digits(circle.radius_km)}")
        _put_named(inner, "geocode", area.geocodes)
        put_in("altitude", _digits(area.altitude) if area.altitude is not None else None)
        put_in("ceiling", _digits(area.ceiling) if area.ceiling is not None else None)


def _digits(value: float) -> str:
    """The shortest decimal that reads back the same, without an exponent."""
    text = format(Decimal(repr(value)), "f")
    return text[:-2] if text.endswith(".0") else text


def plain_text(text: str) -> str:
    """A text without the HTML that some feeds put into it."""
    spaced = re.sub(r"(?i)<\s*(br|/p|/li|/div|/tr)\b[^<>]{0,200}>", "\n", text)
    return _MARKUP.sub("", spaced).strip()
