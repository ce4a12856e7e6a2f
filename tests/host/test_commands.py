"""What the app may ask, by HTTPS or as signed commands in metadata."""

import base64
import json

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from tests.host.examples import WALL, fixture
from vm_setup.host.commands import (
    CancelDrain,
    Extend,
    KeepAlive,
    Order,
    Revoke,
    StartDrain,
    read_body,
    read_command,
    take,
)
from vm_setup.host.tokens import Jwk, Memory, Refusal, Trust, read_keys

LIST = fixture("command_list")
CLAIMS = fixture("command_claims")
TRUST = Trust(issuer=CLAIMS[0]["iss"], audience=CLAIMS[0]["aud"], keys=read_keys(json.dumps(fixture("keys"))))


def verify(key: Jwk, signed: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(f"{key['x']}=")).verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def taken(value: object, memory: Memory | None = None, *, now: float = WALL) -> list[Order | Refusal]:
    return take(value, trust=TRUST, verify=verify, memory=memory or Memory(), now=now)


def test_the_list_of_the_contract_is_obeyed_in_its_order() -> None:
    orders = [order for order in taken(json.dumps(LIST)) if isinstance(order, Order)]
    assert [order.command for order in orders] == [
        KeepAlive(),
        Extend(30),
        StartDrain(1800),
        CancelDrain(),
        Revoke("5b0f7c1e9d"),
    ]
    assert [order.claims.jti for order in orders] == [claims["jti"] for claims in CLAIMS]


def test_a_command_that_stays_in_metadata_is_obeyed_once() -> None:
    memory = Memory()
    assert len(taken(json.dumps(LIST[:1]), memory)) == 1
    assert [type(order) for order in taken(json.dumps(LIST), memory)] == [Order] * 4
    assert taken(json.dumps(LIST), memory, now=WALL + 599) == []


def test_a_command_is_valid_for_ten_minutes() -> None:
    assert taken(json.dumps(LIST[:1]), now=WALL + 600) == [Refusal.EXPIRED]
    assert taken(json.dumps(LIST[:1]), now=WALL - 1) == [Refusal.TOO_LONG]


def test_a_command_that_nobody_signed_is_refused_and_the_others_are_obeyed() -> None:
    forged = LIST[0][:-4] + "AAAA"
    results = taken(json.dumps([forged, 5, LIST[1]]))
    assert results[:2] == [Refusal.SIGNATURE, Refusal.MALFORMED]
    assert isinstance(results[2], Order)


def test_more_than_twenty_commands_are_refused_as_a_whole() -> None:
    assert taken(json.dumps([*LIST * 4, LIST[0]])) == [Refusal.TOO_MANY]


@pytest.mark.parametrize("value", [None, "", "[]"])
def test_no_commands_are_no_refusal(value: object) -> None:
    assert taken(value) == []


@given(value=st.text() | st.binary() | st.none() | st.builds(json.dumps, st.lists(st.text(), max_size=30)))
def test_garbage_is_refused_and_never_an_error(value: object) -> None:
    assert not any(isinstance(result, Order) for result in taken(value))


@pytest.mark.parametrize(("said", "stays"), [({}, False), ({"stay": True}, True), ({"stay": "yes"}, False)])
def test_a_drain_stays_until_its_deadline_only_when_told_so(said: dict[str, object], stays: bool) -> None:  # noqa: FBT001 - a table's column
    command = read_command("POST", "/_host/drain", {"deadline_seconds": 60, **said})
    assert command == StartDrain(60, stay=stays)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/_host/extend", {}),
        ("POST", "/_host/extend", {"minutes": 0}),
        ("POST", "/_host/extend", {"minutes": -5}),
        ("POST", "/_host/extend", {"minutes": True}),
        ("POST", "/_host/extend", {"minutes": "30"}),
        ("POST", "/_host/extend", {"minutes": 10**400}),
        ("POST", "/_host/extend", {"minutes": 1441}),
        ("POST", "/_host/drain", {"deadline_seconds": -1}),
        ("POST", "/_host/drain", {"deadline_seconds": None}),
        ("POST", "/_host/drain", {"deadline_seconds": 1e9}),
        ("POST", "/_host/revoke", {}),
        ("POST", "/_host/revoke", {"session": ""}),
        ("GET", "/_host/drain", {}),
        ("POST", "/_host/poweroff", {}),
        (None, None, {}),
    ],
)
def test_what_is_no_command_or_has_wrong_values_is_none(method: object, path: object, body: dict[str, object]) -> None:
    assert read_command(method, path, body) is None


@given(raw=st.binary())
def test_a_body_that_is_no_object_counts_as_empty(raw: bytes) -> None:
    assert isinstance(read_body(raw), dict)
