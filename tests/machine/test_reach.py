"""What is said when ComfyUI's name leads elsewhere, or browsers don't trust the machine's certificate; and when not."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyweb.machine.model import Certificate, NameSeen
from comfyweb.machine.reach import SETTLING, certificate_facts, certificate_words, covers, hidden, name_words

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
NAME = "comfy.example.com"
MACHINE, OTHER, PROXY = "34.72.1.9", "93.184.216.34", "104.16.1.1"
PROXIES = [ip_network("104.16.0.0/13"), ip_network("2606:4700::/32")]
ADDRESS = st.sampled_from([MACHINE, OTHER, PROXY, "10.0.0.3", "2606:4700::5", "2606:2800:21f::1", "no address"])
SEEN = st.builds(
    NameSeen,
    name=st.just(NAME),
    addresses=st.none() | st.lists(ADDRESS, max_size=4, unique=True).map(tuple),
    reached=st.sampled_from([None, True, False]),
    reached_words=st.just("it answers with error 522"),
)
CERTIFICATE = st.builds(
    Certificate,
    mode=st.sampled_from(["none", "self-signed", "letsencrypt", "cloudflare", "another"]),
    trusted=st.booleans(),
    name=st.sampled_from(["", NAME, "*.example.com", "old.example.com"]),
    until=st.none() | st.sampled_from([NOW - timedelta(days=1), NOW + timedelta(days=60)]),
)


def said(
    *addresses: str,
    reached: bool | None = None,
    up_for: timedelta = timedelta(minutes=5),
    heard: bool = False,
    origin_certificate: bool = False,
) -> str:
    name = NameSeen(name=NAME, addresses=addresses, reached=reached, reached_words="it answers with error 522")
    return name_words(name, MACHINE, PROXIES, up_for=up_for, heard=heard, origin_certificate=origin_certificate)


def test_a_name_that_leads_elsewhere_is_told_with_both_addresses_and_what_to_do() -> None:
    assert f"{NAME} leads to {OTHER}, but the machine is at {MACHINE}. Change its A record to {MACHINE}" in said(OTHER)
    assert "leads to 8.8.8.8, 9.9.9.9 and 93.184.216.34, but" in said("8.8.8.8", "9.9.9.9", OTHER)


def test_a_name_without_an_address_is_told_what_record_it_needs() -> None:
    assert said() == f"{NAME} has no address in the DNS. Make an A record with {MACHINE}, the machine's address."
    assert said(origin_certificate=True).endswith("the machine's address, proxied by Cloudflare.")


def test_an_address_too_many_is_told_though_the_machine_is_among_them() -> None:
    assert f"and also to {OTHER}" in said(MACHINE, OTHER)
    assert said(MACHINE, OTHER, heard=True)


def test_behind_cloudflare_it_counts_whether_the_machine_answers() -> None:
    assert said(PROXY, reached=True) == said(PROXY, reached=None) == ""
    words = said(PROXY, "2606:4700::5", reached=False)
    assert "does not get to the machine: it answers with error 522" in words
    assert MACHINE in words


def test_an_origin_certificate_needs_cloudflare_in_front() -> None:
    assert "Switch the proxy on" in said(MACHINE, origin_certificate=True)
    assert "not to Cloudflare" in said(OTHER, origin_certificate=True)
    assert said(PROXY, origin_certificate=True, reached=True) == ""


@pytest.mark.parametrize("addresses", [(MACHINE,), ("10.0.0.3",), ("10.0.0.3", MACHINE)])
def test_a_name_that_leads_to_the_machine_or_is_an_inner_one_is_no_alarm(addresses: tuple[str, ...]) -> None:
    assert said(*addresses) == ""


@given(SEEN, st.booleans(), st.booleans())
def test_there_is_no_alarm_while_nobody_can_know(name: NameSeen, heard: bool, origin: bool) -> None:  # noqa: FBT001 - hypothesis
    def words(name: NameSeen, ip: str, up_for: timedelta) -> str:
        return name_words(name, ip, PROXIES, up_for=up_for, heard=heard, origin_certificate=origin)

    long = timedelta(hours=1)
    assert words(name, MACHINE, SETTLING - timedelta(seconds=1)) == "", "records follow a machine at its start"
    assert words(name, "", long) == "", "the machine has no address of its own"
    dead = NameSeen(name=NAME, addresses=None)
    assert words(dead, MACHINE, long) == "", "a dead name server says nothing of the name"


@given(SEEN, st.booleans())
def test_whatever_is_seen_it_is_a_sentence_about_the_name_or_nothing(name: NameSeen, origin: bool) -> None:  # noqa: FBT001 - hypothesis
    words = name_words(name, MACHINE, PROXIES, up_for=SETTLING, heard=False, origin_certificate=origin)
    assert not words or (words.startswith(NAME) and words.endswith("."))
    if name.addresses == (MACHINE,) and not origin:
        assert words == ""
    heard = name_words(name, MACHINE, PROXIES, up_for=SETTLING, heard=True, origin_certificate=origin)
    assert not heard or MACHINE in (name.addresses or ()), "what works is not complained of"


def test_only_what_is_wholly_behind_the_proxy_is_hidden() -> None:
    assert hidden([PROXY, "2606:4700::5"], PROXIES)
    assert not hidden([PROXY, MACHINE], PROXIES)
    assert not hidden([], PROXIES)
    assert not hidden(["no address"], PROXIES)


# -- certificates ------------------------------------------------------------------------------------------------------


def certificate(mode: str, *, trusted: bool, name: str = NAME, days: int = 60) -> Certificate:
    return Certificate(mode=mode, trusted=trusted, name=name, until=NOW + timedelta(days=days))


def test_a_trusted_certificate_is_named_and_not_complained_of() -> None:
    assert certificate_facts(certificate("letsencrypt", trusted=True)) == "Let's Encrypt, until 23 January 2027"
    for mode in ("letsencrypt", "cloudflare", "of a later version"):
        assert certificate_words(certificate(mode, trusted=True), NAME, NOW) == ""
    assert certificate_words(certificate("cloudflare", trusted=True, name="*.example.com"), NAME, NOW) == ""


def test_one_that_the_machine_made_itself_is_told_as_that_and_as_passing() -> None:
    words = certificate_words(certificate("self-signed", trusted=False), NAME, NOW)
    assert "made itself" in words
    assert "in a tab of its own" in words
    assert "as soon as it can have it" in words


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (Certificate(mode="none", trusted=False), "has no certificate for comfy.example.com yet"),
        (certificate("letsencrypt", trusted=True, days=-1), "has run out"),
        (certificate("letsencrypt", trusted=True, name="old.example.com"), "is for old.example.com, not for"),
        (certificate("letsencrypt", trusted=False), "Browsers don't trust the certificate"),
    ],
)
def test_what_is_wrong_with_another_is_told(held: Certificate, words: str) -> None:
    assert words in certificate_words(held, NAME, NOW)


@given(CERTIFICATE)
def test_without_a_name_or_a_word_of_the_host_nothing_is_told(held: Certificate) -> None:
    assert certificate_words(held, "", NOW) == ""
    assert certificate_words(None, NAME, NOW) == ""
    words = certificate_words(held, NAME, NOW)
    assert not words or words.endswith(".")
    if not held.trusted:
        assert words


@pytest.mark.parametrize(
    ("pattern", "name", "good"),
    [
        ("comfy.example.com", "comfy.example.com", True),
        ("Comfy.Example.com.", "comfy.example.com", True),
        ("*.example.com", "comfy.example.com", True),
        ("*.example.com", "a.comfy.example.com", False),
        ("*.example.com", "example.com", False),
        ("example.com", "comfy.example.com", False),
    ],
)
def test_a_star_stands_for_one_label(pattern: str, name: str, good: bool) -> None:  # noqa: FBT001 - a table's column
    assert covers(pattern, name) is good
