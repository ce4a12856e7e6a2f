"""What programs can ask of the machine: the same as a button, in the same words."""

import json
from typing import Any

import httpx
import pytest

from comfyweb.control.controller import NotNow, Unavailable
from comfyweb.machine.model import StopMode
from tests.api.conftest import RUNNING, World, problem

ASKS = [
    ("/api/instance/start", None, ("start",)),
    ("/api/instance/stop", None, ("stop", StopMode.DRAIN)),
    ("/api/instance/keep-alive", None, ("keep-alive",)),
    ("/api/instance/extend", {"minutes": 30}, ("extend", 30.0)),
]


@pytest.mark.parametrize(("path", "body", "asked"), ASKS)
async def test_what_is_asked_reaches_the_controller_and_its_words_come_back(
    world: World, caller: httpx.AsyncClient, path: str, body: object, asked: tuple[Any, ...]
) -> None:
    await world.controller.publisher.publish(RUNNING)
    answer = await caller.post(path, json=body) if body else await caller.post(path)
    assert answer.json() == {"success": True, "message": "As you wish.", "status": "RUNNING"}
    assert world.controller.asked == [asked]


@pytest.mark.parametrize(("path", "body", "asked"), ASKS)
async def test_what_the_phase_does_not_allow_is_409_with_the_controllers_words(
    world: World, caller: httpx.AsyncClient, path: str, body: object, asked: tuple[Any, ...]
) -> None:
    world.controller.refusal = NotNow("The machine is off.")
    assert problem(await caller.post(path, json=body), 409)["error"] == "The machine is off."


@pytest.mark.parametrize(("path", "body", "asked"), ASKS)
async def test_what_cannot_be_done_is_503_with_the_controllers_words(
    world: World, caller: httpx.AsyncClient, path: str, body: object, asked: tuple[Any, ...]
) -> None:
    world.controller.refusal = Unavailable("It could not be stored.")
    answer = await caller.post(path, json=body)
    assert problem(answer, 503)["error"] == "It could not be stored."
    assert answer.headers["retry-after"]


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (b"", StopMode.DRAIN),
        (b"{}", StopMode.DRAIN),
        (b"null", StopMode.DRAIN),
        (b'{"mode": "drain"}', StopMode.DRAIN),
        (b'{"mode": "now"}', StopMode.NOW),
    ],
)
async def test_a_stop_is_gentle_unless_asked_otherwise(
    world: World, caller: httpx.AsyncClient, content: bytes, mode: StopMode
) -> None:
    answer = await caller.post("/api/instance/stop", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert world.controller.asked == [("stop", mode)]


@pytest.mark.parametrize("minutes", ["30", True, None, [30], 0, 0.99, 120.01, -1, 1e300, float("nan"), float("inf")])
async def test_the_machine_is_extended_by_a_number_of_minutes_within_bounds_only(
    world: World, caller: httpx.AsyncClient, minutes: object
) -> None:
    answer = await caller.post(
        "/api/instance/extend",
        content=json.dumps({"minutes": minutes}),
        headers={"content-type": "application/json"},
    )
    assert problem(answer, 422)["errors"][0]["where"] == "body.minutes"
    assert world.controller.asked == []


async def test_a_ticket_is_made_for_the_callers_session(world: World, caller: httpx.AsyncClient) -> None:
    answer = await caller.post("/api/comfyui/ticket")
    assert answer.json() == {"url": "http://localhost:3002/_host/gate?ticket=As you wish."}
    assert answer.headers["cache-control"] == "no-store"
    assert world.controller.asked == [("ticket", next(iter(world.bench.store.rows)))]


async def test_no_ticket_while_comfyui_is_not_ready(world: World, caller: httpx.AsyncClient) -> None:
    world.controller.refusal = NotNow("ComfyUI is not ready yet.")
    assert problem(await caller.post("/api/comfyui/ticket"), 409)["detail"] == "ComfyUI is not ready yet."
