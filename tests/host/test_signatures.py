"""Checking signatures with what a machine has: both ways say the same, and without one nothing is obeyed."""

import json
import shutil
from pathlib import Path

import pytest

from tests.host.examples import WALL, fixture
from vm_setup.base import signatures
from vm_setup.host.commands import Order, take
from vm_setup.host.tokens import Memory, Trust, Verify, read_keys

LIST = fixture("command_list")
CLAIMS = fixture("command_claims")
TRUST = Trust(issuer=CLAIMS[0]["iss"], audience=CLAIMS[0]["aud"], keys=read_keys(json.dumps(fixture("keys"))))
HAS_OPENSSL = shutil.which("openssl") is not None


def without_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "_by_cryptography", lambda: None)


@pytest.fixture(params=["cryptography", pytest.param("openssl", marks=pytest.mark.skipif(not HAS_OPENSSL, reason=""))])
def verify(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Verify:
    if request.param == "openssl":
        without_cryptography(monkeypatch)
    found = signatures.verifier()
    assert found is not None
    return found


def test_the_apps_commands_are_believed_and_spoilt_ones_are_not(verify: Verify) -> None:
    def taken(tokens: list[str]) -> list[bool]:
        orders = take(json.dumps(tokens), trust=TRUST, verify=verify, memory=Memory(), now=WALL)
        return [isinstance(order, Order) for order in orders]

    assert taken(LIST) == [True] * len(LIST)
    assert taken([token[:-3] + "AAA" for token in LIST]) == [False] * len(LIST)


@pytest.mark.parametrize("key", [{}, {"x": ""}, {"x": "AAAA"}, {"x": "é"}, {"x": 5}])
def test_a_key_that_is_none_is_no_error(verify: Verify, key: dict[str, object]) -> None:
    assert not verify(key, b"x", b"\0" * 64)


def test_a_signature_of_the_wrong_length_is_no_error(verify: Verify) -> None:
    assert not verify(fixture("keys")["keys"][0], b"x", b"")


def test_a_machine_with_neither_checks_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_cryptography(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert signatures.verifier() is None


@pytest.mark.parametrize("answer", [0, 1])
def test_a_program_that_always_says_the_same_is_not_believed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: int
) -> None:
    without_cryptography(monkeypatch)
    program = tmp_path / "openssl"
    program.write_text(f"#!/bin/sh\nexit {answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert signatures.verifier() is None
