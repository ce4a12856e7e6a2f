"""What supervisors and load balancers ask."""

import httpx
import pytest

from comfyweb.api import health
from comfyweb.api.events import Ending
from tests.api.conftest import World, problem


async def test_a_process_that_answers_is_alive_even_before_it_has_started(stranger: httpx.AsyncClient) -> None:
    assert (await stranger.get("/healthz")).json() == {"status": "ok"}


async def test_ready_names_everything_that_is_needed(world: World, stranger: httpx.AsyncClient) -> None:
    answer = await stranger.get("/readyz")
    assert answer.json() == {"status": "ok", "dependencies": {"database": "ok", "compute-engine": "ok"}}


@pytest.mark.parametrize(("name", "status"), [("database", 503), ("loop", 503), ("compute-engine", 200)])
async def test_what_fails_is_named_to_everybody_and_explained_to_who_is_logged_in(
    world: World, stranger: httpx.AsyncClient, name: str, status: int
) -> None:
    world.controller.found = world.controller.found | {name: "compute.instances.get is not granted on demo-project"}
    answer = await stranger.get("/readyz")
    assert answer.status_code == status
    assert answer.json()["dependencies"] == {"database": "ok", "compute-engine": "ok"} | {name: "failing"}
    assert "demo-project" not in answer.text
    told = await stranger.get("/readyz", headers={"x-auth-token": await world.token()})
    assert told.status_code == status
    assert "not granted" in told.json()["dependencies"][name]


async def test_while_google_alone_fails_the_page_that_says_so_stays_in_reach(
    world: World, stranger: httpx.AsyncClient
) -> None:
    world.controller.found = world.controller.found | {"compute-engine": "Google can't be reached"}
    assert (await stranger.get("/readyz")).json()["status"] == "degraded"
    world.controller.found = world.controller.found | {"database": "disk I/O error"}
    named = problem(await stranger.get("/readyz"), 503)["dependencies"]
    assert named == {"database": "failing", "compute-engine": "failing"}


async def test_before_the_start_nothing_is_ready(stranger: httpx.AsyncClient) -> None:
    assert set(problem(await stranger.get("/readyz"), 503)["dependencies"]) == {"comfyweb"}


async def test_a_process_that_was_told_to_end_is_alive_and_not_ready(
    world: World, stranger: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending = Ending()
    monkeypatch.setattr(health, "ending", ending)
    assert (await stranger.get("/readyz")).status_code == 200
    ending.begun = True
    answer = await stranger.get("/readyz")
    assert problem(answer, 503)["dependencies"] == {"comfyweb": "comfyweb is shutting down"}
    assert (await stranger.get("/healthz")).status_code == 200
