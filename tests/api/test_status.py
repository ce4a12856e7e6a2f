"""The fast path of `GET /api/instance/status`."""

import httpx

from tests.api.conftest import RUNNING, UNSEEN, World, problem

PATH = "/api/instance/status"


async def test_the_status_is_the_newest_snapshot_and_not_cached(world: World, caller: httpx.AsyncClient) -> None:
    first = await caller.get(PATH)
    assert first.json() == UNSEEN.body
    assert first.headers["content-type"] == "application/json"
    assert first.headers["cache-control"] == "no-store"
    await world.controller.publisher.publish(RUNNING)
    second = await caller.get(PATH)
    assert second.json()["status"] == "RUNNING"
    assert {"status", "external_ip", "comfyui_url", "last_activity", "phase"} <= set(second.json())


async def test_head_tells_the_same_headers_without_the_body(world: World, caller: httpx.AsyncClient) -> None:
    full, head = await caller.get(PATH), await caller.head(PATH)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers == full.headers
    assert int(head.headers["content-length"]) == len(full.content)


async def test_who_holds_the_newest_snapshot_hears_that_nothing_changed(
    world: World, caller: httpx.AsyncClient
) -> None:
    tag = (await caller.get(PATH)).headers["etag"]
    for held in (tag, f'"other", W/{tag}', "*"):
        same = await caller.get(PATH, headers={"if-none-match": held})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    await world.controller.publisher.publish(RUNNING)
    assert (await caller.get(PATH, headers={"if-none-match": tag})).status_code == 200


async def test_other_methods_are_named(world: World, caller: httpx.AsyncClient) -> None:
    options = await caller.options(PATH)
    assert (options.status_code, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"):
        answer = await caller.request(method, PATH)
        problem(answer, 405)
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_no_other_origin_is_invited(world: World, caller: httpx.AsyncClient) -> None:
    asks = {"origin": "https://evil.example", "access-control-request-method": "GET"}
    for method in ("GET", "OPTIONS"):
        answer = await caller.request(method, PATH, headers=asks)
        assert not [name for name in answer.headers if name.startswith("access-control-")]
