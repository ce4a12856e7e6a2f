"""A real ComfyUI behind the stand-in's gate: another process that the stand-in only passes on to."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from wsproto.events import TextMessage

from comfyweb.demo.comfyui_tunnel import WebSocketClient
from tests.demo.standin_machine import Machine, machine, serving, until
from tests.launching import free_ports


class Behind:
    """What plays the real ComfyUI: it shows what reached it."""

    def __init__(self) -> None:
        self.running: list[object] = []
        self.app = Starlette(
            routes=[
                Route("/system_stats", self._stats),
                Route("/queue", self._queue),
                Route("/stream", self._stream),
                WebSocketRoute("/ws", self._echo),
                Route("/{path:path}", self._show, methods=["GET", "POST"]),
            ]
        )

    async def _stats(self, _: Request) -> Response:
        return JSONResponse({"system": {"comfyui_version": "9.9"}})

    async def _queue(self, _: Request) -> Response:
        return JSONResponse({"queue_running": self.running, "queue_pending": []})

    async def _stream(self, _: Request) -> Response:
        async def parts() -> AsyncGenerator[str]:
            for part in ("one ", "two"):
                yield part
                await asyncio.sleep(0)

        return StreamingResponse(parts(), media_type="text/plain")

    async def _show(self, request: Request) -> Response:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        seen = {
            "headers": dict(request.headers),
            "size": size,
            "path": request.scope["raw_path"].decode(),
            "query": request.url.query,
        }
        return PlainTextResponse(json.dumps(seen), 203, {"X-From": "behind"})

    async def _echo(self, websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(dict(websocket.headers))
        async for text in websocket.iter_text():
            await websocket.send_text(text)


@asynccontextmanager
async def real() -> AsyncGenerator[tuple[Machine, Behind]]:
    behind, port = Behind(), free_ports()
    async with serving(behind.app, port), machine(comfyui_url=f"http://127.0.0.1:{port}") as made:
        yield made, behind


async def shown(browser: httpx.AsyncClient, path: str, **headers: str) -> Any:
    answer = await browser.get(path, headers=headers)
    assert (answer.status_code, answer.headers["x-from"]) == (203, "behind")
    return json.loads(answer.text)


async def test_it_sees_the_request_as_it_came_but_for_the_cookie() -> None:
    async with real() as (made, _), made.entered() as browser:
        seen = await shown(browser, "/a%20b/c?d=%2F&e")
        assert (seen["path"], seen["query"]) == ("/a%20b/c", "d=%2F&e")
        assert seen["headers"]["host"] == made.url.removeprefix("http://")
        assert "cookie" not in seen["headers"]


async def test_sec_fetch_site_is_hidden_for_the_navigation_that_opens_the_page_alone() -> None:
    cross = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    async with real() as (made, _), made.entered() as browser:
        assert "sec-fetch-site" not in (await shown(browser, "/", **cross))["headers"]
        assert (await shown(browser, "/other", **cross))["headers"]["sec-fetch-site"] == "cross-site"
        fetched = await shown(browser, "/", **{**cross, "Sec-Fetch-Mode": "cors"})
        assert fetched["headers"]["sec-fetch-site"] == "cross-site"


async def test_uploads_and_streams_go_through_whole() -> None:
    async with real() as (made, _), made.entered() as browser:
        answer = await browser.post("/upload/image", files={"image": ("big", b"x" * 3_000_000)})
        assert json.loads(answer.text)["size"] > 3_000_000
        assert (await browser.get("/stream")).text == "one two"


async def test_a_stranger_reaches_nothing_of_it() -> None:
    async with real() as (made, _), made.browser() as stranger:
        assert (await stranger.get("/system_stats")).status_code == 401


async def test_a_websocket_goes_through_both_ways_with_its_first_words() -> None:
    async with real() as (made, _), made.entered() as browser:
        port = browser.base_url.port or 80
        client = WebSocketClient(*await asyncio.open_connection("127.0.0.1", port))
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        assert await client.open(f"localhost:{port}", "/ws?clientId=1", [("cookie", cookie), ("origin", made.url)])
        heard: list[str] = []
        long = "é" * 200_000
        await client.say(TextMessage(data=long))

        async def heard_both() -> bool:
            heard.extend(event.data for event in await client.hear() if isinstance(event, TextMessage))
            return long in "".join(heard)

        await until(heard_both)
        client.close()
        first = json.loads("".join(heard).partition("}")[0] + "}")
        assert (first["host"], first["origin"]) == (f"localhost:{port}", made.url)
        assert "cookie" not in first


async def test_its_queue_keeps_the_machine_on() -> None:
    async with real() as (made, behind):
        assert (await comfyui(made))["version"] == "9.9"
        behind.running = [["a job"]]
        await until(lambda: is_running(made))
        made.clocks.moved = 3000
        await made.settled()
        assert not made.powered_off


async def comfyui(made: Machine) -> Any:
    return (await made.status())["comfyui"]


async def is_running(made: Machine) -> bool:
    return (await comfyui(made))["queue_running"] == 1


async def test_one_that_dies_says_so_and_keeps_nothing_on() -> None:
    behind, port = Behind(), free_ports()
    async with machine(comfyui_url=f"http://127.0.0.1:{port}", power=False) as made:
        async with serving(behind.app, port):
            await made.standin.power_on("boot-1")
            await made.ready()
        async with made.entered() as browser:
            answer = await browser.get("/")
            assert (answer.status_code, answer.headers["retry-after"]) == (502, "2")
            assert "does not answer" in answer.text
        made.clocks.moved = 1801
        await until(made.is_off)
