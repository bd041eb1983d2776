"""Checks the XML signatures of warnings: whether what came is what was signed, by whom, and whether we trust them.

A good signature alone proves little, since anybody can make a key; `trusted` says that the certificate is one that was
given to us, or was issued by one. What is signed must be the whole message.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, XMLVerifier

from services.intake.cap import DSIG, tree_of

Result = Literal["none", "valid", "weak", "invalid", "unchecked"]
"""weak: it fits, but was made with SHA-1, which can be forged. unchecked: its algorithm or key is not known here."""

_MOST = 4
_WORST: tuple[Result, ...] = ("invalid", "unchecked", "weak", "valid")
_METHODS = frozenset(method for method in SignatureMethod if "HMAC" not in method.name)
_DIGESTS = frozenset(DigestAlgorithm)
_SIGNATURE = f"{{{DSIG}}}Signature"
_FAULTS = (
    SignXMLException,
    InvalidSignature,
    UnsupportedAlgorithm,
    etree.LxmlError,
    ValueError,
    TypeError,
    LookupError,
)
"""What signxml and the libraries under it raise for signatures that are not as they should be."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What came of checking a message's signatures; of several the worst counts. `by` is the certificate's subject."""

    result: Result
    detail: str = ""
    by: str | None = None
    trusted: bool = False


def certificates(pem: bytes) -> list[x509.Certificate]:
    """The certificates in a PEM file.

    Raises
    ------
    ValueError
        There is none, or one that cannot be read.
    """
    return x509.load_pem_x509_certificates(pem)


def check(raw: bytes, sent: datetime, trusted: Sequence[x509.Certificate] = ()) -> Signature:
    """Check the signatures of a message that `cap.read` has read, given as it came; `sent` is when it was sent."""
    count = len(tree_of(raw).findall(_SIGNATURE))
    if count == 0:
        return Signature("none")
    if count > _MOST:
        return Signature("unchecked", f"{count} signatures; at most {_MOST} are checked")
    found = [_one(raw, number, sent, trusted) for number in range(count)]
    return min(found, key=lambda signature: _WORST.index(signature.result))


def _one(raw: bytes, number: int, sent: datetime, trusted: Sequence[x509.Certificate]) -> Signature:
    signature = tree_of(raw).findall(_SIGNATURE)[number]
    spoilt = next((name for name, text in _encoded(signature) if not _canonical(text)), None)
    if spoilt is not None:
        return Signature("invalid", f"{spoilt} is not well encoded")
    certificate: x509.Certificate | None = None
    der = signature.findtext(f".//{{{DSIG}}}X509Certificate")
    if der is None and signature.find(f"{{{DSIG}}}KeyInfo/{{{DSIG}}}KeyValue") is None:
        return Signature("unchecked", "the signature names no key")
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(der)) if der is not None else None
        by = certificate.subject.rfc4514_string() if certificate is not None else None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return Signature("invalid", "its certificate cannot be read")
    method = signature.find(f"{{{DSIG}}}SignedInfo/{{{DSIG}}}SignatureMethod")
    digests = [element.get("Algorithm", "") for element in signature.iter(f"{{{DSIG}}}DigestMethod")]
    algorithm = "" if method is None else method.get("Algorithm", "")
    unknown = [name for name in digests if name not in {known.value for known in _DIGESTS}]
    if unknown or algorithm not in {known.value for known in _METHODS}:
        return Signature("unchecked", f"made with {(unknown or [algorithm])[0][:100]}, which is not known here", by)
    reason = ""
    for root, form in _forms(raw, number):
        try:
            _verify(root, certificate)
        except _FAULTS as error:
            reason = reason or str(error).strip().split("\n")[0].rstrip(": ")[:200]
        else:
            weak = any(re.search(r"(?i)[#-]sha1$", name) for name in (algorithm, *digests))
            return Signature("weak" if weak else "valid", form, by, _is_trusted(certificate, sent, trusted))
    return Signature("invalid", reason or "it does not fit what came", by)


def _encoded(signature: etree._Element) -> Iterator[tuple[str, str]]:
    for name in ("DigestValue", "SignatureValue", "X509Certificate"):
        for element in signature.iter(f"{{{DSIG}}}{name}"):
            yield name, element.text or ""


def _canonical(text: str) -> bool:
    """Whether this base64 is the only way to write its bytes; Python reads over bits that stand for nothing."""
    bare = "".join(text.split())
    try:
        return base64.b64encode(base64.b64decode(bare, validate=True)).decode() == bare
    except (binascii.Error, ValueError):
        return False


def _forms(raw: bytes, number: int) -> Iterator[tuple[etree._Element, str]]:
    """The message in the forms over which its signature may have been made, the most likely first.

    Whoever signs after another signs the other's signature too, or leaves it out. Some make the signature over the
    message in one line and break it into lines afterwards: blanks between elements mean nothing in CAP.
    """
    for blanks in (True, False):
        for earlier in (True, False):
            root = tree_of(raw)
            if not blanks:
                root = etree.fromstring(
                    etree.tostring(root),
                    etree.XMLParser(resolve_entities=False, no_network=True, remove_blank_text=True),
                )
            signatures = root.findall(_SIGNATURE)
            if earlier or number:
                for other in signatures[number + 1 :] + ([] if earlier else signatures[:number]):
                    _remove(other)
                yield root, "" if blanks else "signed without the blanks between elements"


def _remove(element: etree._Element) -> None:
    """Take an element out and leave the text behind it."""
    parent, before = element.getparent(), element.getprevious()
    if element.tail:
        if before is not None:
            before.tail = (before.tail or "") + element.tail
        else:
            parent.text = (parent.text or "") + element.tail
    parent.remove(element)


class _LastSignature(XMLVerifier):
    """Checks the last signature of the message itself; signxml would take the first one anywhere."""

    def _get_signature(self, root: Any) -> Any:
        return root.findall(_SIGNATURE)[-1]

    def _c14n(self, nodes: Any, algorithm: Any, inclusive_ns_prefixes: Any = None) -> bytes:
        # libxml2 writes a wrong xmlns="" into children when it canonicalises an element inside of a document.
        alone = tree_of(etree.tostring(nodes, with_tail=False)) if isinstance(nodes, etree._Element) else nodes
        canonical: bytes = super()._c14n(alone, algorithm, inclusive_ns_prefixes)
        return canonical


def _verify(root: etree._Element, certificate: x509.Certificate | None) -> None:
    # Some name their signature with a blank, which XML does not allow of an Id; it is no part of what is signed.
    root.findall(_SIGNATURE)[-1].attrib.pop("Id", None)
    middle = None
    if certificate is not None:
        # Whether it had run out is for `_is_trusted` to judge: here only the key counts.
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        middle = start + (end - start) / 2
    config = SignatureConfiguration(
        require_x509=False,
        location="./",
        expect_references=1,
        signature_methods=_METHODS,
        digest_algorithms=_DIGESTS,
        verification_time=middle,
    )
    result = _LastSignature().verify(root, x509_cert=certificate, expect_config=config)
    signed = None if isinstance(result, list) else result.signed_xml
    if signed is None or signed.tag != root.tag:
        raise SignXMLException("the signature covers only a part of the message")


def _is_trusted(certificate: x509.Certificate | None, sent: datetime, trusted: Sequence[x509.Certificate]) -> bool:
    """Whether the certificate was given to us or issued by one that was, and was good when the message was sent."""
    if certificate is None or not certificate.not_valid_before_utc <= sent <= certificate.not_valid_after_utc:
        return False
    if certificate in trusted:
        return True
    for issuer in trusted:
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False
