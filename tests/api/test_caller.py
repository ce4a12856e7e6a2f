"""Whose request it is: the token, and the page it came from."""

from typing import Any

import pytest

from comfyweb.api.caller import Token, from_own_page, token_of
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
