"""Keys, contact ids, erasure, tokens and roles."""

from __future__ import annotations

from datetime import timedelta

import jwt
import pytest

from services.runtime import auth, clock, vault
from services.runtime.problems import Forbidden, Unauthenticated
from services.runtime.settings import Settings

GOLDEN_CONTACT_ID = "c3b7zbwuwjf5qux4647extdpwafjl6jbf"
"""Of +6281234567890 with the secret `one`. It must never change: ids in journals were made this way."""


@pytest.mark.parametrize("number", ["0812-3456-7890", "+62 812 3456 7890", "62 81234567890", "(0812) 3456.7890"])
def test_one_number_in_any_spelling_is_one_contact(number):
    assert (
        vault.normal_number(number.replace("62 8", "+62 8", 1) if number.startswith("62") else number)
        == "+6281234567890"
    )


@pytest.mark.parametrize("number", ["", "banjir", "12", "0" * 40, "\x00", "+999999999999999999"])
def test_what_is_no_number_is_refused(number):
    with pytest.raises(vault.NotANumber):
        vault.normal_number(number)


def test_contact_ids_are_stable_and_depend_on_the_secret(monkeypatch, secret):
    monkeypatch.setenv("GOTONG_SECRET_KEY", "one")
    first = vault.contact_id("+6281234567890")
    assert first == vault.contact_id("+6281234567890")
    assert first == GOLDEN_CONTACT_ID
    vault.forget_secret()
    monkeypatch.setenv("GOTONG_SECRET_KEY", "two")
    assert vault.contact_id("+6281234567890") != first


async def test_a_sealed_value_opens_until_its_owner_is_erased(make_db):
    db = make_db("intake")
    async with db.tx() as tx:
        sealed = await vault.seal(tx, "cone", b"Budi, +62812")
        other = await vault.seal(tx, "ctwo", b"Siti")
    assert b"Budi" not in sealed
    async with db.tx() as tx:
        assert await vault.unseal(tx, "cone", sealed) == b"Budi, +62812"
        assert await vault.erase(tx, "cone")
    async with db.tx() as tx:
        assert await vault.unseal(tx, "cone", sealed) is None
        assert await vault.unseal(tx, "ctwo", other) == b"Siti"
        await vault.seal(tx, "cone", b"came back")
        assert await vault.unseal(tx, "cone", sealed) is None


async def test_a_sealed_value_cannot_be_passed_off_as_another_persons(make_db):
    async with make_db("intake").tx() as tx:
        sealed = await vault.seal(tx, "cone", b"Budi")
        await vault.seal(tx, "ctwo", b"Siti")
        assert await vault.unseal(tx, "ctwo", sealed) is None


def test_a_token_says_who_asks():
    token = auth.sign("operator", "posko", organisation="bpbd", operations=("a",), hours=1)
    actor = auth.actor_of(token, Settings())
    assert (actor.role, actor.subject, actor.organisation, actor.operations) == ("operator", "posko", "bpbd", ("a",))
    actor.require("operator", "field")
    actor.require_operation("a")
    with pytest.raises(Forbidden):
        actor.require("auditor")
    with pytest.raises(Forbidden):
        actor.require_operation("b")


def test_a_token_ends():
    token = auth.sign("operator", "posko", hours=1)
    clock.shift(timedelta(hours=1, seconds=1))
    with pytest.raises(Unauthenticated, match="expired"):
        auth.actor_of(token, Settings())


@pytest.mark.parametrize(
    "claims", [{"role": "operator"}, {"role": "root", "sub": "x"}, {"role": "public", "sub": "x"}, {"sub": "x"}]
)
def test_a_token_without_a_role_or_subject_is_refused(claims):
    token = jwt.encode(claims | {"iss": "gotong", "exp": 9_999_999_999}, vault.token_key(), algorithm="HS256")
    with pytest.raises(Unauthenticated):
        auth.actor_of(token, Settings())


@pytest.mark.parametrize("algorithm", ["none", "HS512"])
def test_a_forged_token_is_refused(algorithm):
    claims = {"iss": "gotong", "sub": "x", "role": "admin", "exp": 9_999_999_999}
    key = "" if algorithm == "none" else vault.token_key()
    with pytest.raises(Unauthenticated):
        auth.actor_of(jwt.encode(claims, key or None, algorithm=algorithm), Settings())
    with pytest.raises(Unauthenticated):
        auth.actor_of(jwt.encode(claims, b"x" * 32, algorithm="HS256"), Settings())


def test_nobody_anonymous_passes_for_a_role():
    with pytest.raises(Unauthenticated):
        auth.Actor("public", "x").require("operator")
    auth.Actor("admin", "x").require("operator")
