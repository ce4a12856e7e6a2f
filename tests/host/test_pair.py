"""What counts as a certificate that can be used, judged by the real OpenSSL."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.host import authority
from tests.host.authority import NAME, Pair, issue
from vm_setup.setup import pair
from vm_setup.setup.pair import Unusable

GOOD = issue(NAME)
OTHER = issue(NAME)
PAGE = b"<!DOCTYPE html><html><title>Sign in</title></html>"


def check(folder: Path, found: Pair, name: str = NAME) -> pair.Dates:
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(found.chain)
    key.write_bytes(found.key)
    return pair.check(chain, key, name)


def test_a_good_pair_has_its_dates(tmp_path: Path) -> None:
    now = datetime.now(UTC).timestamp()
    dates = check(tmp_path, issue(NAME))
    assert dates.since == pytest.approx(now - 86400, abs=120)
    assert dates.until == pytest.approx(now + 3650 * 86400, abs=120)


def test_browsers_trust_what_the_machine_s_own_list_of_authorities_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(tmp_path, GOOD)
    chain, key, known = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "known.pem"
    assert not pair.is_trusted(chain, key, NAME)
    monkeypatch.setenv("SSL_CERT_FILE", str(known))
    known.write_bytes(GOOD.chain[GOOD.chain.rindex(b"-----BEGIN") :])
    assert pair.is_trusted(chain, key, NAME)
    assert not pair.is_trusted(chain, key, "other.example.com")


@pytest.mark.parametrize("name", ["comfy.example.com", "a.example.com"])
def test_a_wildcard_is_for_every_name_of_its_level(tmp_path: Path, name: str) -> None:
    check(tmp_path, issue("*.example.com", "example.com"), name)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (replace(GOOD, key=OTHER.key), "the key does not belong to the certificate"),
        (issue("other.example.com"), f"not for {NAME}"),
        (issue("*.example.org"), f"not for {NAME}"),
        (issue("*.comfy.example.com"), f"not for {NAME}"),
        (issue(until=timedelta(hours=-1)), "has expired"),
        (issue(since=timedelta(hours=1)), "not good yet"),
        (issue(use=ExtendedKeyUsageOID.CLIENT_AUTH), "can't serve a web site"),
        (authority.encrypted(GOOD), "encrypted with a password"),
        (replace(GOOD, chain=PAGE), "the certificate is a web page"),
        (replace(GOOD, key=PAGE), "no private key"),
        (replace(GOOD, chain=b""), "no PEM file"),
        (replace(GOOD, key=b""), "no private key"),
        (replace(GOOD, chain=b"\xff\xfe\x00"), "no PEM file"),
        (replace(GOOD, key=b"\xff\xfe\x00"), "no PEM file"),
        (Pair(chain=GOOD.key, key=GOOD.chain), "no PEM file"),
        (replace(GOOD, chain=GOOD.chain[:300]), "ends in its middle"),
        (replace(GOOD, chain=GOOD.chain[:-60]), "ends in its middle"),
        (replace(GOOD, key=GOOD.key[:120]), "ends in its middle"),
        (replace(GOOD, chain=GOOD.chain.replace(b"M", b"-", 3)), "OpenSSL can't read the certificate"),
    ],
)
def test_what_can_not_be_used_is_refused_with_its_reason(tmp_path: Path, found: Pair, words: str) -> None:
    with pytest.raises(Unusable, match=words):
        check(tmp_path, found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(0, len(GOOD.chain) - 2), of_key=st.booleans())
def test_no_half_of_a_file_is_ever_taken(tmp_path: Path, cut: int, *, of_key: bool) -> None:
    first = GOOD.chain.index(b"-----END CERTIFICATE-----") + len(b"-----END CERTIFICATE-----")
    whole = GOOD.key if of_key else GOOD.chain
    half = whole[: cut % (len(whole) - 1)]
    found = replace(GOOD, key=half) if of_key else replace(GOOD, chain=half)
    if not of_key and len(half) in range(first, first + 2):
        return  # cut between two certificates: the first is whole, and all that has to be sent
    with pytest.raises(Unusable):
        check(tmp_path, found)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(chain=st.binary(max_size=300), key=st.binary(max_size=300))
def test_anything_may_be_stored_there_and_only_unusable_is_raised(tmp_path: Path, chain: bytes, key: bytes) -> None:
    for found in (Pair(chain=chain, key=key), Pair(chain=GOOD.chain, key=key), Pair(chain=chain, key=GOOD.key)):
        with pytest.raises(Unusable):
            check(tmp_path, found)
