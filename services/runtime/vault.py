"""Keys and the contact vault: personal data encrypted with one key per person; erasing is destroying that key.

Three keys are derived from the installation's one secret (HKDF-SHA256): token, contact, vault. The contact key must
never change, for the contact ids in events are derived with it. The format of what is stored stays as it is:
`wrapped` = nonce (12) + AES-256-GCM of the person's key under the vault key, with the owner as associated data;
a sealed value = nonce (12) + AES-256-GCM under the person's key, with the owner as associated data.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence
from functools import lru_cache

import phonenumbers
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.runtime.db import Tx
from services.runtime.settings import Settings


class NotANumber(ValueError):
    """This is no telephone number that could be dialled."""


@lru_cache(maxsize=8)
def _derived(secret: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=b"gotong", info=purpose.encode()).derive(secret)


@lru_cache(maxsize=1)
def _secret() -> bytes:
    return Settings().secret()


def forget_secret() -> None:
    """Read the secret again at the next use; for tests that change it."""
    _secret.cache_clear()


def token_key(secret: bytes | None = None) -> bytes:
    """Signs our own tokens; of another installation than this process's, if its secret is given."""
    return _derived(secret or _secret(), "token")


def contact_key() -> bytes:
    """Turns a number into a contact id; never changes."""
    return _derived(_secret(), "contact")


def vault_key() -> bytes:
    """Wraps the persons' keys."""
    return _derived(_secret(), "vault")


def normal_number(number: str, region: str = "ID") -> str:
    """A telephone number in E.164 form: `0812-3456-789` and `+62 812 3456 789` are one.

    Raises
    ------
    NotANumber
        No number of that form exists.
    """
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException as error:
        raise NotANumber(f"not a telephone number: {error}") from None
    if not phonenumbers.is_possible_number(parsed):
        raise NotANumber("no telephone number has this length")
    return str(phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164))


def contact_id(address: str) -> str:
    """The id of whoever has this number (E.164) or other address; the same in every service, and not reversible."""
    digest = hmac.new(contact_key(), address.encode(), hashlib.sha256).digest()
    return "c" + base64.b32encode(digest[:20]).decode().lower()


async def keys(tx: Tx, owners: Iterable[str]) -> dict[str, bytes]:
    """The key of each owner, made where there is none yet."""
    wanted = sorted(set(owners))
    if not wanted:
        return {}
    wrapper = AESGCM(vault_key())
    known = await tx.fetch("SELECT owner, wrapped FROM vault_key WHERE owner = ANY($1)", wanted)
    if len(known) < len(wanted):
        there = {row["owner"] for row in known}
        fresh = [owner for owner in wanted if owner not in there]
        await tx.execute(
            "INSERT INTO vault_key (owner, wrapped) SELECT * FROM unnest($1::text[], $2::bytea[]) "
            "ON CONFLICT DO NOTHING",
            fresh,
            [_encrypt(wrapper, os.urandom(32), owner) for owner in fresh],
        )
        # Read back: another transaction may have made the same owner's key first, and that one counts.
        known = await tx.fetch("SELECT owner, wrapped FROM vault_key WHERE owner = ANY($1)", wanted)
    return {row["owner"]: _decrypt(wrapper, row["wrapped"], row["owner"]) for row in known}


async def seal(tx: Tx, owner: str, value: bytes) -> bytes:
    """Encrypt a value with its owner's key."""
    return seal_with((await keys(tx, [owner]))[owner], owner, value)


def seal_with(key: bytes, owner: str, value: bytes) -> bytes:
    """Encrypt a value with a key that `keys` gave."""
    return _encrypt(AESGCM(key), value, owner)


async def unseal(tx: Tx, owner: str, sealed: bytes) -> bytes | None:
    """The value, or None if its owner was erased."""
    return (await unseal_all(tx, [(owner, sealed)]))[0]


async def unseal_all(tx: Tx, values: Sequence[tuple[str, bytes]]) -> list[bytes | None]:
    """The values of these (owner, sealed) in their order; None for each whose owner was erased."""
    owners = sorted({owner for owner, _ in values})
    wrapper = AESGCM(vault_key())
    known = {
        row["owner"]: AESGCM(_decrypt(wrapper, row["wrapped"], row["owner"]))
        for row in await tx.fetch("SELECT owner, wrapped FROM vault_key WHERE owner = ANY($1)", owners)
    }
    found: list[bytes | None] = []
    for owner, sealed in values:
        try:
            found.append(_decrypt(known[owner], sealed, owner) if owner in known else None)
        except InvalidTag:
            found.append(None)  # sealed with a key that was destroyed; a new one was made for the same owner since
    return found


async def erase(tx: Tx, owner: str) -> bool:
    """Destroy a person's key, and with it all that was sealed under it; whether there was one."""
    return await tx.execute("DELETE FROM vault_key WHERE owner = $1", owner) != "DELETE 0"


def _encrypt(cipher: AESGCM, value: bytes, owner: str) -> bytes:
    nonce = os.urandom(12)
    return nonce + cipher.encrypt(nonce, value, owner.encode())


def _decrypt(cipher: AESGCM, sealed: bytes, owner: str) -> bytes:
    return cipher.decrypt(sealed[:12], sealed[12:], owner.encode())
