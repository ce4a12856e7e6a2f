"""Where the app listens, and what it changes in Reflex's files."""

import pytest

import rxconfig
from comfyweb.__main__ import address, in_use
from comfyweb.settings import load
from tests.launching import REQUIRED, free_ports


@pytest.mark.parametrize(
    ("more", "environ", "listens"),
    [
        ({}, {}, "127.0.0.1"),
        ({"PUBLIC_URL": "http://127.0.0.1:8080"}, {}, "127.0.0.1"),
        ({"PUBLIC_URL": "https://app.example.com"}, {}, "0.0.0.0"),
        ({}, {"container": "docker"}, "0.0.0.0"),
    ],
)
def test_it_listens_where_it_is_reached(more: dict[str, str], environ: dict[str, str], listens: str) -> None:
    assert address(load(REQUIRED | more, None), environ) == listens


def test_a_free_port_is_free() -> None:
    assert not in_use("127.0.0.1", free_ports(1))


def test_a_file_is_changed_once() -> None:
    changed = rxconfig._put("a b c", "b", "d")
    assert changed == "a d c"
    assert rxconfig._put(changed, "b", "d") == changed


@pytest.mark.parametrize("code", ["a c", "a b b"])
def test_a_reflex_that_has_changed_is_noticed_by_the_build(code: str) -> None:
    with pytest.raises(RuntimeError, match="look up"):
        rxconfig._put(code, "b", "d")
