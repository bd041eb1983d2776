"""Takes the CAP messages out of a file: one alert, or several in an Atom or RSS feed or an EDXL envelope.

Only as much is read as finding them needs; what a message says is judged by the server.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from gotong.reportfile import FileFault, Row

NAMESPACES = ("urn:oasis:names:tc:emergency:cap:1.1", "urn:oasis:names:tc:emergency:cap:1.2")


class _HasDoctype(Exception):
    """A document type: it could declare entities that grow or that fetch."""


def read_rows(path: Path) -> Iterator[Row]:
    """Each alert as a row whose body is `{"cap": bytes}`; `line` counts the alerts.

    A file that is one alert passes byte for byte, so its signature stays good.

    Raises
    ------
    FileFault
        The file is no XML, has a document type, or holds no alert.
    """
    try:
        content = path.read_bytes()
        _refuse_doctype(content)
        root = ElementTree.fromstring(content)
    except OSError as error:
        raise FileFault(f"{path} cannot be read ({error.strerror}); name another file.") from None
    except _HasDoctype:
        raise FileFault(f"{path} has a document type, which no CAP message has and which can do harm.") from None
    except (expat.ExpatError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise FileFault(f"{path} is no XML ({error}); give its kind with --format.") from None
    alerts = _alerts(root)
    if alerts == [root]:
        return iter([Row(1, {"cap": content})])
    if not alerts:
        raise FileFault(
            f"{path} holds no CAP alert; an index feed only has links, so fetch the messages that it names."
        )  # fmt: skip
    return (Row(number, {"cap": _text(alert)}) for number, alert in enumerate(alerts, start=1))


def _refuse_doctype(content: bytes) -> None:
    def found(*_: object) -> None:
        raise _HasDoctype

    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = found
    parser.Parse(content, True)


def _alerts(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [element for element in root.iter() if element.tag in {f"{{{name}}}alert" for name in NAMESPACES}]


def _text(alert: ElementTree.Element) -> bytes:
    namespace = alert.tag[1:].partition("}")[0]
    # ElementTree keeps prefixes for the whole process, so that the default one is set for each message anew.
    ElementTree.register_namespace("", namespace)
    alert.tail = None
    content: bytes = ElementTree.tostring(alert, encoding="utf-8", xml_declaration=True)
    return content
