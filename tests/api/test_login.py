"""Logging in and out over REST."""

from datetime import UTC, datetime, timedelta

import httpx

from comfyweb.access.throttle import ATTEMPTS
from comfyweb.control.services import Bound, services
from comfyweb.settings import load
from tests.access.conftest import PASSWORD
from tests.api.conftest import SETTINGS, World, problem

LOGIN = "/api/auth/login"


async def test_the_password_opens_a_session_of_24_hours_and_sets_no_cookie(
    world: World, stranger: httpx.AsyncClient
) -> None:
    answer = await stranger.post(LOGIN, json={"password": PASSWORD})
    assert answer.status_code == 200
    assert set(answer.json()) == {"token", "expires_at"}
    assert "set-cookie" not in answer.headers
    assert answer.headers["cache-control"] == "no-store"
    expires = datetime.fromisoformat(answer.json()["expires_at"])
    assert timedelta(hours=23) < expires - datetime.now(UTC) <= timedelta(hours=24)
    assert answer.json()["expires_at"].endswith("Z")
    for path in ("/api/auth/check", "/api/auth/check-alt"):
        told = await stranger.get(path, headers={"x-auth-token": answer.json()["token"]})
        assert told.json() == {"authenticated": True, "expires_at": answer.json()["expires_at"]}


async def test_every_wrong_password_hears_the_same(world: World, stranger: httpx.AsyncClient) -> None:
    wrong = ["", "x", PASSWORD.upper(), "é" * 1500, "\x00"]
    answers = [await stranger.post(LOGIN, json={"password": text}) for text in wrong]
    for answer in answers:
        problem(answer, 401)
    assert len({answer.content for answer in answers}) == 1
    assert len({tuple(answer.headers.items()) for answer in answers}) == 1


async def test_guessing_is_refused_per_address_and_says_for_how_long(world: World, stranger: httpx.AsyncClient) -> None:
    token = await world.token()
    for _ in range(ATTEMPTS):
        problem(await stranger.post(LOGIN, json={"password": "guess"}), 401)
    refused = await stranger.post(LOGIN, json={"password": PASSWORD})
    problem(refused, 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert (await stranger.get("/api/auth/check", headers={"x-auth-token": token})).status_code == 200


async def test_behind_a_proxy_each_client_is_counted_for_itself(world: World, stranger: httpx.AsyncClient) -> None:
    settings = load(SETTINGS | {"TRUSTED_PROXY_HOPS": "1"}, None)
    services.bind(Bound(settings=settings, sessions=services.sessions, controller=services.controller))
    guesser, owner = {"x-forwarded-for": "8.8.8.8, 198.51.100.7"}, {"x-forwarded-for": "8.8.8.8, 198.51.100.8"}
    for _ in range(ATTEMPTS):
        await stranger.post(LOGIN, json={"password": "guess"}, headers=guesser)
    problem(await stranger.post(LOGIN, json={"password": "guess"}, headers=guesser), 429)
    assert (await stranger.post(LOGIN, json={"password": PASSWORD}, headers=owner)).status_code == 200


async def test_a_forged_forwarded_address_does_not_escape_the_throttle(
    world: World, stranger: httpx.AsyncClient
) -> None:
    for n in range(ATTEMPTS):
        await stranger.post(LOGIN, json={"password": "guess"}, headers={"x-forwarded-for": f"198.51.100.{n}"})
    problem(await stranger.post(LOGIN, json={"password": "guess"}, headers={"x-forwarded-for": "198.51.100.99"}), 429)


async def test_logout_ends_this_session_at_once_and_no_other(world: World, caller: httpx.AsyncClient) -> None:
    other = {"x-auth-token": await world.token()}
    assert (await caller.get("/api/instance/status")).status_code == 200
    assert (await caller.post("/api/auth/logout")).json() == {"success": True, "message": "Logged out."}
    problem(await caller.get("/api/instance/status"), 401)
    problem(await caller.post("/api/auth/logout"), 401)
    assert (await caller.get("/api/instance/status", headers=other)).status_code == 200


async def test_logging_everyone_out_ends_all_sessions(world: World, caller: httpx.AsyncClient) -> None:
    other = {"x-auth-token": await world.token()}
    assert (await caller.post("/api/auth/logout-everyone")).status_code == 200
    problem(await caller.get("/api/auth/check"), 401)
    problem(await caller.get("/api/auth/check", headers=other), 401)


async def test_while_sessions_cannot_be_stored_nobody_logs_in_and_a_logout_says_what_it_is_worth(
    world: World, caller: httpx.AsyncClient
) -> None:
    world.bench.store.down = True
    refused = await caller.post(LOGIN, json={"password": PASSWORD})
    problem(refused, 503)
    assert refused.headers["retry-after"]
    assert "restart" in problem(await caller.post("/api/auth/logout"), 503)["detail"]
    problem(await caller.get("/api/auth/check"), 401)


async def test_while_sessions_cannot_be_stored_everyone_can_still_be_logged_out_here(
    world: World, caller: httpx.AsyncClient
) -> None:
    world.bench.store.down = True
    problem(await caller.post("/api/auth/logout-everyone"), 503)
    problem(await caller.get("/api/auth/check"), 401)
