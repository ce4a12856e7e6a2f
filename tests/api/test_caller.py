"""Whose request it is: the token, the page and the address it came from."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyweb.api.caller import Token, address_of, from_own_page, token_of
from comfyweb.settings import load
from tests.api.conftest import SETTINGS


def _scope(*headers: tuple[str, str], client: tuple[str, int] | None = ("192.0.2.1", 5)) -> dict[str, Any]:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return {"type": "http", "headers": raw, "client": client}


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([], None),
        ([("x-auth-token", " T ")], Token("T")),
        ([("authorization", "Bearer T")], Token("T")),
        ([("authorization", "bearer  T ")], Token("T")),
        ([("authorization", "Basic T")], None),
        ([("authorization", "Bearer")], None),
        ([("cookie", "a=b; auth-token=T")], Token("T", by_cookie=True)),
        ([("cookie", "a=b"), ("cookie", "auth-token=T")], Token("T", by_cookie=True)),
        ([("cookie", "auth-token=C"), ("authorization", "Bearer B")], Token("B")),
        ([("cookie", "auth-token=C"), ("authorization", "Bearer B"), ("x-auth-token", "X")], Token("X")),
        ([("cookie", "auth-token=C"), ("x-auth-token", "")], Token("")),
    ],
)
def test_the_token_is_found_in_three_places(headers: list[tuple[str, str]], token: Token | None) -> None:
    assert token_of(_scope(*headers)) == token


@pytest.mark.parametrize(
    ("hops", "forwarded", "address"),
    [
        (0, ["198.51.100.7"], "192.0.2.1"),
        (1, [], "192.0.2.1"),
        (1, ["198.51.100.7"], "198.51.100.7"),
        (1, ["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        (2, ["6.6.6.6, 198.51.100.7, 10.0.0.1"], "198.51.100.7"),
        (2, ["6.6.6.6", "198.51.100.7,10.0.0.1"], "198.51.100.7"),
        (2, ["198.51.100.7"], "192.0.2.1"),
        (1, ["2001:DB8::1"], "2001:db8::1"),
        (1, ["unknown"], "192.0.2.1"),
        (1, [""], "192.0.2.1"),
    ],
)
def test_of_forwarded_addresses_only_the_one_a_trusted_proxy_wrote_counts(
    hops: int, forwarded: list[str], address: str
) -> None:
    assert address_of(_scope(*(("x-forwarded-for", value) for value in forwarded)), hops) == address


def test_without_a_peer_there_is_no_address() -> None:
    assert address_of(_scope(client=None), 0) == ""


@given(claimed=st.lists(st.text(st.characters(codec="latin-1"), max_size=20), max_size=4), hops=st.integers(1, 3))
def test_whatever_a_client_claims_the_trusted_entry_stays(claimed: list[str], hops: int) -> None:
    written = ["198.51.100.7", *("10.0.0.1" for _ in range(hops - 1))]
    assert address_of(_scope(("x-forwarded-for", ",".join([*claimed, *written]))), hops) == "198.51.100.7"


def test_a_page_is_ours_by_the_browsers_word_and_by_its_origin() -> None:
    settings = load(SETTINGS | {"PUBLIC_URL": "https://app.example.com"}, None)

    def ours(*headers: tuple[str, str]) -> bool:
        return from_own_page(_scope(("host", "app.example.com"), *headers), settings)

    assert ours(("sec-fetch-site", "same-origin"))
    assert ours(("origin", "https://app.example.com"))
    assert not ours(("sec-fetch-site", "same-site"), ("origin", "https://app.example.com"))
    assert not ours(("origin", "https://comfy.example.com"))
    assert not ours(("origin", "http://app.example.com"))
    assert not ours()
