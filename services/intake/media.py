"""What photographs and recordings are, judged by their content alone, and what of them is kept.

Pure functions over bytes; no picture is decoded, so a small file cannot grow into a large one here. What is kept shows
and sounds as before: of the parts of a file that only describe it, everything goes that may say where, when or by whom
it was made. The position is read first. Sources: JPEG (ITU T.81), EXIF 2.32, PNG (W3C, third edition), the WebP
container, ISO 14496-12 (MP4, 3GP), RFC 3533 (Ogg), RFC 4867 (AMR).
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PHOTOS = ("image/jpeg", "image/png", "image/webp")
RECORDINGS = ("audio/ogg", "audio/amr", "audio/mpeg", "audio/aac", "audio/mp4", "audio/wav", "video/mp4")


class Refused(ValueError):
    """This is no photograph or recording that is kept; the text says why, in a sentence."""


@dataclass(frozen=True, slots=True)
class Clean:
    """What is kept of a file. `point`: (lon, lat) where it says that it was taken."""

    type: str
    data: bytes
    point: tuple[float, float] | None = None


def clean(raw: bytes) -> Clean:
    """The file without what describes its maker, and its type by content.

    Raises
    ------
    Refused
        It is of no kind that is kept, or damaged.
    """
    for matches, read in _READERS:
        if matches(raw):
            try:
                return read(raw)
            except (struct.error, IndexError):
                raise Refused("the file is cut off or damaged") from None
    raise Refused("the content is no photograph (JPEG, PNG, WebP) and no recording (Ogg, AMR, MP3, AAC, WAV, MP4)")


# JPEG

_AFTER_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_KEPT_SEGMENTS = {0xE0, 0xEE, 0xDB, 0xC4, 0xDD, 0xDC, 0xCC} | (set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC})
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg(raw: bytes) -> Clean:
    """Only what is needed to show it. What follows the picture goes too: telephones put videos and copies there."""
    kept = [b"\xff\xd8"]
    exif = Exif()
    shown = scanned = False
    at = 2
    while at < len(raw):
        if raw[at] != 0xFF:
            raise Refused("the JPEG file is damaged")
        marker = raw[at + 1]
        if marker == 0xFF:  # a filler
            at += 1
            continue
        if marker == 0xD9:
            break
        (length,) = struct.unpack_from(">H", raw, at + 2)
        end = at + 2 + length
        if length < 2 or end > len(raw):
            raise Refused("the JPEG file is cut off or damaged")
        payload = raw[at + 4 : end]
        if marker == 0xDA:
            match = _AFTER_SCAN.search(raw, end)
            end = match.start() if match else len(raw)
            scanned = True
        shown |= marker in _FRAMES and len(payload) >= 5 and any(payload[1:3]) and any(payload[3:5])
        if marker == 0xE1 and payload.startswith(b"Exif\x00"):
            exif = exif or read_exif(payload[6:])
        elif marker == 0xDA or marker in _KEPT_SEGMENTS or (marker == 0xE2 and payload.startswith(b"ICC_PROFILE\x00")):
            kept.append(raw[at:end])
        at = end
    if not shown or not scanned:
        raise Refused("the JPEG file holds no picture")
    if exif.orientation not in (None, 1):  # without it the picture would lie on its side
        kept.insert(1, _upright(exif.orientation or 1))
    return Clean("image/jpeg", b"".join([*kept, b"\xff\xd9"]), exif.point)


def _upright(orientation: int) -> bytes:
    tiff = b"MM\x00*\x00\x00\x00\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    payload = b"Exif\x00\x00" + tiff
    return b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload


# EXIF


@dataclass(frozen=True, slots=True)
class Exif:
    """What we read of a file's EXIF. `orientation` as its tag 0x0112, 1 to 8."""

    orientation: int | None = None
    point: tuple[float, float] | None = None

    def __bool__(self) -> bool:
        return self.orientation is not None or self.point is not None


def read_exif(tiff: bytes) -> Exif:
    """What a block of EXIF says; nothing where it is damaged."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return Exif()
    try:
        (first,) = struct.unpack_from(order + "I", tiff, 4)
        tags = dict(_tags(tiff, order, first))
        orientation = struct.unpack_from(order + "H", tags[0x0112][1])[0] if 0x0112 in tags else None
        point = None
        if 0x8825 in tags:
            (gps,) = struct.unpack_from(order + "I", tags[0x8825][1])
            point = _gps_point(tiff, order, dict(_tags(tiff, order, gps)))
    except (struct.error, ValueError):
        return Exif()
    return Exif(orientation if orientation is not None and 1 <= orientation <= 8 else None, point)


_MOST_TAGS = 200


def _tags(tiff: bytes, order: str, at: int) -> Iterator[tuple[int, tuple[int, bytes]]]:
    """Each tag of a directory with its number of values and its four bytes: a value, or where to find it."""
    (count,) = struct.unpack_from(order + "H", tiff, at)
    for n in range(min(count, _MOST_TAGS)):
        tag, _, values = struct.unpack_from(order + "HHI", tiff, at + 2 + 12 * n)
        yield tag, (values, tiff[at + 10 + 12 * n : at + 14 + 12 * n])


def _gps_point(tiff: bytes, order: str, tags: dict[int, tuple[int, bytes]]) -> tuple[float, float] | None:
    if not {1, 2, 3, 4} <= set(tags):
        return None
    lat = _degrees(tiff, order, tags[2][1])
    lon = _degrees(tiff, order, tags[4][1])
    if lat is None or lon is None or lat > 90 or lon > 180 or (lat == 0 and lon == 0):
        return None  # a camera without a fix writes zeros
    south, west = tags[1][1][:1] in b"Ss", tags[3][1][:1] in b"Ww"
    return (round(-lon if west else lon, 6), round(-lat if south else lat, 6))


def _degrees(tiff: bytes, order: str, where: bytes) -> float | None:
    (at,) = struct.unpack(order + "I", where)
    numbers = struct.unpack_from(order + "6I", tiff, at)
    parts = [over / under if under else None for over, under in zip(numbers[::2], numbers[1::2], strict=True)]
    if parts[0] is None:
        return None
    return float(parts[0] + (parts[1] or 0) / 60 + (parts[2] or 0) / 3600)


# PNG and WebP

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = {b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"pHYs", b"sBIT", b"bKGD"}


def _png(raw: bytes) -> Clean:
    kept = [_PNG]
    names: list[bytes] = []
    exif = Exif()
    at = len(_PNG)
    while not names or names[-1] != b"IEND":
        (length,) = struct.unpack_from(">I", raw, at)
        name = raw[at + 4 : at + 8]
        (checksum,) = struct.unpack_from(">I", raw, at + 8 + length)
        if zlib.crc32(raw[at + 4 : at + 8 + length]) != checksum:
            raise Refused("the PNG file is damaged")
        names.append(name)
        if name == b"eXIf":
            exif = read_exif(raw[at + 8 : at + 8 + length])
        if name[:1].isupper() or name in _PNG_KEPT:
            kept.append(raw[at : at + 12 + length])
        at += 12 + length
    if names[0] != b"IHDR" or b"IDAT" not in names:
        raise Refused("the PNG file holds no picture")
    return Clean("image/png", b"".join(kept), exif.point)


_WEBP_KEPT = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"}


def _webp(raw: bytes) -> Clean:
    kept: list[bytes] = []
    exif = Exif()
    shown = False
    for name, body in _riff(raw):
        if name == b"EXIF":
            exif = read_exif(body.removeprefix(b"Exif\x00\x00"))
        if name == b"VP8X" and body:
            body = bytes([body[0] & ~0x0C]) + body[1:]  # says that EXIF and XMP are there
        shown |= name in (b"VP8 ", b"VP8L", b"ANMF")
        if name in _WEBP_KEPT:
            kept.append(_riff_chunk(name, body))
    if not shown:
        raise Refused("the WebP file holds no picture")
    return Clean("image/webp", _riff_file(b"WEBP", kept), exif.point)


def _wav(raw: bytes) -> Clean:
    kept = {name: body for name, body in _riff(raw) if name in (b"fmt ", b"data")}
    if set(kept) != {b"fmt ", b"data"}:
        raise Refused("the WAV file holds no sound")
    return Clean("audio/wav", _riff_file(b"WAVE", [_riff_chunk(name, kept[name]) for name in (b"fmt ", b"data")]))


def _riff(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(raw):
        name = raw[at : at + 4]
        (length,) = struct.unpack_from("<I", raw, at + 4)
        if at + 8 + length > len(raw):
            raise Refused("the file is cut off or damaged")
        yield name, raw[at + 8 : at + 8 + length]
        at += 8 + length + (length & 1)


def _riff_chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\x00" * (len(body) & 1)


def _riff_file(kind: bytes, chunks: list[bytes]) -> bytes:
    body = kind + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


# MP4 and its kin

_HEIC = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis"}
_HOLDS_BOXES = {b"moov", b"trak", b"mdia"}
_DESCRIBES = {b"udta", b"meta", b"uuid"}
_ISO6709 = re.compile(rb"([+-]\d{1,2}(?:\.\d{1,8})?)([+-]\d{1,3}(?:\.\d{1,8})?)")
_DEEPEST_BOX = 5
_MOST_BOXES = 10_000


def _mp4(raw: bytes) -> Clean:
    """What describes the recording is overwritten in place, so that no offset in the file changes."""
    if raw[8:12] in _HEIC:
        raise Refused("HEIC and AVIF pictures are not kept, because their position cannot be taken out; send a JPEG")
    data = bytearray(raw)
    point: tuple[float, float] | None = None
    handlers: set[bytes] = set()
    names: set[bytes] = set()
    for name, start, end in _boxes(raw, 0, len(raw), 0):
        names.add(name)
        if name == b"hdlr":
            handlers.add(raw[start + 8 : start + 12])
        if name in _DESCRIBES:
            found = raw.find(b"\xa9xyz", start, end)
            match = _ISO6709.search(raw, found, min(found + 40, end)) if found >= 0 else None
            if match:
                lat, lon = float(match[1]), float(match[2])
                point = (lon, lat) if abs(lat) <= 90 and abs(lon) <= 180 and (lat, lon) != (0, 0) else point
            head = raw.rfind(name, max(0, start - 16), start)
            data[head : head + 4] = b"free"
            data[start:end] = bytes(end - start)
    if b"moov" not in names or b"mdat" not in names or not handlers & {b"soun", b"vide"}:
        raise Refused("the MP4 file holds no recording, or was cut off")
    return Clean("video/mp4" if b"vide" in handlers else "audio/mp4", bytes(data), point)


def _boxes(raw: bytes, at: int, end: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """Every box's name with where its content begins and ends, those that hold others before them."""
    seen = 0
    while at + 8 <= end:
        seen += 1
        if seen > _MOST_BOXES:
            raise Refused("the MP4 file has too many parts")
        size, name = struct.unpack_from(">I4s", raw, at)
        start = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", raw, start)
            start += 8
        stop = end if size == 0 else at + size
        if stop < start or stop > end:
            raise Refused("the MP4 file is cut off or damaged")
        yield name, start, stop
        if name in _HOLDS_BOXES and depth < _DEEPEST_BOX:
            yield from _boxes(raw, start, stop, depth + 1)
        at = stop


# Sound alone


def _ogg(raw: bytes) -> Clean:
    if not any(codec in raw[:200] for codec in (b"OpusHead", b"\x01vorbis", b"Speex   ", b"\x7fFLAC")):
        raise Refused("the Ogg file holds no sound that is known")
    return Clean("audio/ogg", raw)


def _amr(raw: bytes) -> Clean:
    if len(raw) < 20:
        raise Refused("the AMR file holds no sound")
    return Clean("audio/amr", raw)


def _is_mpeg(raw: bytes) -> bool:
    return len(raw) > 3 and raw[0] == 0xFF and raw[1] & 0xE0 == 0xE0 and raw[2] & 0xF0 != 0xF0 and raw[2] & 0x0C != 0x0C


def _mpeg(raw: bytes) -> Clean:
    """MP3, or AAC in ADTS frames; tags before and after the sound go."""
    sound = raw
    if sound[:3] == b"ID3":
        size = struct.unpack(">4B", sound[6:10])
        length = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(size, (21, 14, 7, 0), strict=True))
        sound = sound[length:].lstrip(b"\x00")
    if not _is_mpeg(sound):
        raise Refused("the file holds no sound that is known")
    if len(sound) > 128 and sound[-128:-125] == b"TAG":
        sound = sound[:-128]
    return Clean("audio/mpeg" if sound[1] & 0x06 else "audio/aac", sound)


_Matches = Callable[[bytes], bool]
_Reads = Callable[[bytes], Clean]
_READERS: tuple[tuple[_Matches, _Reads], ...] = (
    (lambda raw: raw.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda raw: raw.startswith(_PNG), _png),
    (lambda raw: raw.startswith(b"RIFF") and raw[8:12] == b"WEBP", _webp),
    (lambda raw: raw.startswith(b"RIFF") and raw[8:12] == b"WAVE", _wav),
    (lambda raw: raw[4:8] == b"ftyp", _mp4),
    (lambda raw: raw.startswith(b"OggS\x00"), _ogg),
    (lambda raw: raw.startswith((b"#!AMR\n", b"#!AMR-WB\n")), _amr),
    (lambda raw: raw.startswith(b"ID3") or _is_mpeg(raw), _mpeg),
)
