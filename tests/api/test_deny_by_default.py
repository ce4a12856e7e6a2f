"""Nobody gets past the guard without a live session, on any route, but for those named here."""

from collections.abc import Awaitable, Callable

import httpx
import pytest
from starlette.routing import Route

from comfyweb.api.app import create_api
from tests.api.conftest import World, problem

PUBLIC = {
    ("POST", "/api/auth/login"),
    ("GET", "/api/docs"),
    ("GET", "/api/docs/{name}"),
    ("GET", "/api/openapi.json"),
    ("HEAD", "/api/openapi.json"),
    ("GET", "/healthz"),
    ("GET", "/metrics"),  # has a token of its own: test_metrics.py
    ("GET", "/readyz"),
}


def _documented() -> set[tuple[str, str]]:
    paths = create_api().openapi()["paths"]
    return {(method.upper(), path) for path, item in paths.items() for method in item}


def _routed() -> set[tuple[str, str]]:
    found = set[tuple[str, str]]()
    for route in create_api().routes:
        part = getattr(route, "original_router", None)  # FastAPI keeps a router that was included whole
        for one in part.routes if part else [route]:
            assert isinstance(one, Route)
            found |= {(method, one.path) for method in one.methods or ()}
    return found


GUARDED = sorted((_documented() | _routed()) - PUBLIC)
UNSAFE = [(method, path) for method, path in GUARDED if method == "POST"]


async def _none(_: World) -> str:
    return ""


async def _garbage(_: World) -> str:
    return "é.\x00.ÿ"


WHO: dict[str, Callable[[World], Awaitable[str]]] = {
    "stranger": _none,
    "garbage": _garbage,
    "expired": World.expired_token,
    "logged-out": World.ended_token,
}


def test_the_walk_sees_the_whole_api() -> None:
    assert len(_documented()) == 15
    assert {path for _, path in _documented()} - {path for _, path in _routed()} == {"/api/instance/status"}
    assert not PUBLIC - _documented() - _routed()


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_a_route_is_closed_without_a_live_session(
    world: World, stranger: httpx.AsyncClient, method: str, path: str, who: str
) -> None:
    token = (await WHO[who](world)).encode("latin-1")
    for headers in (
        {b"x-auth-token": token},
        {b"authorization": b"Bearer " + token},
        {b"cookie": b"auth-token=" + token, b"sec-fetch-site": b"same-origin"},
    ):
        answer = await stranger.request(method, path, headers=headers)
        if method == "HEAD":
            assert answer.status_code == 401
        else:
            assert problem(answer, 401)["authenticated"] is False
        assert answer.headers["www-authenticate"] == "Bearer"
    assert world.controller.asked == []


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "nonsense"])
@pytest.mark.parametrize(("method", "path"), UNSAFE)
async def test_a_cookie_that_another_page_made_the_browser_send_is_refused(
    world: World, stranger: httpx.AsyncClient, method: str, path: str, site: str
) -> None:
    cookie = {"cookie": f"auth-token={await world.token()}"}
    problem(await stranger.request(method, path, headers=cookie | {"sec-fetch-site": site}), 403)
    problem(await stranger.request(method, path, headers=cookie | {"origin": "http://localhost:3002"}), 403)
    problem(await stranger.request(method, path, headers=cookie | {"origin": "null"}), 403)
    problem(await stranger.request(method, path, headers=cookie), 403)
    assert world.controller.asked == []


async def test_a_cookie_from_our_own_page_is_a_login(world: World, stranger: httpx.AsyncClient) -> None:
    cookie = {"cookie": f"theme=dark; auth-token={await world.token()}; x=y"}
    for proof in (
        {"sec-fetch-site": "same-origin"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://[::1]:3000"},
    ):
        assert (await stranger.post("/api/instance/start", headers=cookie | proof)).status_code == 200
    assert (await stranger.get("/api/instance/status", headers=cookie)).status_code == 200


async def test_a_token_in_the_address_is_no_login(world: World, stranger: httpx.AsyncClient) -> None:
    token = await world.token()
    for name in ("token", "auth-token", "x-auth-token", "access_token"):
        problem(await stranger.get("/api/instance/events", params={name: token}), 401)


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/nothing", "/api/docsx", "/api/auth/login/", "/api//docs"])
async def test_an_address_that_does_not_exist_tells_a_stranger_nothing(
    world: World, stranger: httpx.AsyncClient, path: str
) -> None:
    problem(await stranger.get(path), 401)


async def test_before_the_process_has_started_nobody_gets_in(stranger: httpx.AsyncClient) -> None:
    for method, path in GUARDED:
        assert (await stranger.request(method, path, headers={"x-auth-token": "a.b.c"})).status_code == 503
