"""The part of ComfyUI's HTTP and websocket API that its page and programs use, spoken by the stand-in.

Every path is also there under /api, as in ComfyUI.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from importlib.resources import files

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from comfyweb.demo.comfyui import VERSION, ComfyUI, Disk, Job, features
from comfyweb.demo.comfyui_nodes import Json, PromptRefusedError, object_info, plan
from vm_setup.host.messages import Work
from vm_setup.host.reading import items, json_value, mapping, word

_BODY_LIMIT = 4_000_000
_UPLOAD_LIMIT = 100 * 1024 * 1024
_WORD_LIMIT = 200
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)
_PAGE = files("comfyweb.demo").joinpath("comfyui_page")

Answer = Callable[[Request], Awaitable[Response]]


class StandInComfyUI:
    """A ComfyUI of its own, page and all. `origin` tells the app's origin, to which its page reports."""

    def __init__(self, disk: Disk, *, job_seconds: float, origin: Callable[[], str]) -> None:
        self._comfyui = ComfyUI(disk, job_seconds=job_seconds)
        self._origin = origin
        self._settings: Json = {}
        self._calls = Starlette(routes=self._routes())

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or a websocket."""
        await self._calls(scope, receive, send)

    async def run(self) -> None:
        """Do the jobs, until cancelled."""
        await self._comfyui.run()

    def work(self) -> Work:
        """Return what it is doing."""
        return self._comfyui.work()

    async def close(self) -> None:
        """Nothing is held that would have to be let go of."""

    def _routes(self) -> list[BaseRoute]:
        calls: list[tuple[str, str, Answer]] = [
            ("GET", "/system_stats", self._system_stats),
            ("GET", "/queue", self._queue),
            ("POST", "/queue", self._change_queue),
            ("GET", "/prompt", self._remaining),
            ("POST", "/prompt", self._submit),
            ("GET", "/history", self._history),
            ("POST", "/history", self._change_history),
            ("GET", "/history/{prompt_id}", self._history),
            ("GET", "/jobs", self._jobs),
            ("GET", "/jobs/{prompt_id}", self._job),
            ("GET", "/view", self._view),
            ("POST", "/interrupt", self._interrupt),
            ("POST", "/free", self._free),
            ("POST", "/upload/image", self._upload),
            ("GET", "/features", _constant(features())),
            ("GET", "/object_info", _constant(object_info())),
            ("GET", "/users", _constant({"storage": "server", "migrated": False})),
            ("GET", "/extensions", _constant([])),
            ("GET", "/settings", self._read_settings),
            ("POST", "/settings", self._write_settings),
        ]
        routes: list[BaseRoute] = [Route("/", self._page), Mount("/page", StaticFiles(directory=str(_PAGE)))]
        for prefix in ("", "/api"):
            routes += [Route(prefix + path, call, methods=[method]) for method, path, call in calls]
            routes.append(WebSocketRoute(prefix + "/ws", self._listen))
        return routes

    async def _page(self, _: Request) -> Response:
        text = _PAGE.joinpath("index.html").read_text(encoding="utf-8")
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
        return HTMLResponse(text.replace("APP_ORIGIN", self._origin()), headers=headers)

    async def _system_stats(self, _: Request) -> Response:
        gib = 1024**3
        system: Json = {
            "os": "linux",
            "ram_total": 15 * gib,
            "ram_free": 11 * gib,
            "comfyui_version": VERSION,
            "argv": [],
        }
        device = {"name": "Stand-in T4", "type": "cuda", "index": 0, "vram_total": 15 * gib, "vram_free": 14 * gib}
        return JSONResponse({"system": system, "devices": [device]})

    async def _queue(self, _: Request) -> Response:
        running, pending = self._comfyui.running(), self._comfyui.pending()
        return JSONResponse(
            {"queue_running": [job.row() for job in running], "queue_pending": [job.row() for job in pending]}
        )

    async def _change_queue(self, request: Request) -> Response:
        asked = await _json(request)
        if asked.get("clear") is True:
            self._comfyui.drop(None)
        if (prompt_ids := items(asked.get("delete"))) is not None:
            self._comfyui.drop({str(prompt_id) for prompt_id in prompt_ids})
        return Response()

    async def _remaining(self, _: Request) -> Response:
        jobs = len(self._comfyui.running()) + len(self._comfyui.pending())
        return JSONResponse({"exec_info": {"queue_remaining": jobs}})

    async def _submit(self, request: Request) -> Response:
        asked = await _json(request)
        try:
            accepted = plan(asked.get("prompt"))
        except PromptRefusedError as error:
            return JSONResponse(error.body, HTTPStatus.BAD_REQUEST)
        job = self._comfyui.submit(
            accepted,
            prompt_id=_new_id(self._comfyui, asked.get("prompt_id")),
            client=word(asked.get("client_id"), limit=_WORD_LIMIT) or "",
            extra=mapping(asked.get("extra_data")),
        )
        return JSONResponse({"prompt_id": job.id, "number": job.number, "node_errors": {}})

    async def _history(self, request: Request) -> Response:
        wanted = request.path_params.get("prompt_id")
        jobs = [job for job in self._comfyui.done() if wanted in (None, job.id)]
        return JSONResponse({job.id: _remembered(job) for job in jobs})

    async def _change_history(self, request: Request) -> Response:
        asked = await _json(request)
        if asked.get("clear") is True:
            self._comfyui.forget(None)
        if (prompt_ids := items(asked.get("delete"))) is not None:
            self._comfyui.forget({str(prompt_id) for prompt_id in prompt_ids})
        return Response()

    async def _jobs(self, request: Request) -> Response:
        offset, limit = _count(request, "offset", 0), _count(request, "limit", 100)
        comfyui = self._comfyui
        jobs = [*reversed(comfyui.pending()), *comfyui.running(), *reversed(comfyui.done())]
        page = [_summary(job) for job in jobs[offset : offset + limit]]
        more = offset + len(page) < len(jobs)
        pagination = {"offset": offset, "limit": limit, "total": len(jobs), "has_more": more}
        return JSONResponse({"jobs": page, "pagination": pagination})

    async def _job(self, request: Request) -> Response:
        job = self._comfyui.find(request.path_params["prompt_id"])
        if job is None:
            return JSONResponse({"error": "Job not found"}, HTTPStatus.NOT_FOUND)
        return JSONResponse({**_summary(job), "outputs": job.outputs})

    async def _view(self, request: Request) -> Response:
        asked = request.query_params
        content = self._comfyui.disk.load(
            asked.get("type", "output"), asked.get("subfolder", ""), asked.get("filename", "")
        )
        if content is None:
            return Response(status_code=HTTPStatus.NOT_FOUND)
        media_type = "image/png" if content.startswith(b"\x89PNG") else "application/octet-stream"
        return Response(content, media_type=media_type)

    async def _interrupt(self, _: Request) -> Response:
        self._comfyui.interrupt()
        return Response()

    async def _free(self, _: Request) -> Response:
        return Response()

    async def _upload(self, request: Request) -> Response:
        async with request.form(max_files=1, max_part_size=_UPLOAD_LIMIT) as form:
            image = form.get("image")
            if not isinstance(image, UploadFile) or not image.filename:
                return Response(status_code=HTTPStatus.BAD_REQUEST)
            content = await image.read(_UPLOAD_LIMIT + 1)
            if len(content) > _UPLOAD_LIMIT:
                return Response(status_code=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            folder = str(form.get("subfolder", ""))
            self._comfyui.disk.save("input", folder, image.filename, content)
            return JSONResponse({"name": image.filename, "subfolder": folder, "type": "input"})

    async def _read_settings(self, _: Request) -> Response:
        return JSONResponse(self._settings)

    async def _write_settings(self, request: Request) -> Response:
        self._settings |= await _json(request)
        return Response()

    async def _listen(self, websocket: WebSocket) -> None:
        await websocket.accept()
        listener = self._comfyui.listen(word(websocket.query_params.get("clientId"), limit=_WORD_LIMIT) or "")

        async def send() -> None:
            while True:
                await websocket.send_json(await listener.inbox.get())

        sending = asyncio.create_task(send())
        try:
            with contextlib.suppress(WebSocketDisconnect):
                while True:
                    await websocket.receive()
        except RuntimeError:  # Starlette's word for reading on after the client has gone
            return
        finally:
            sending.cancel()
            self._comfyui.unlisten(listener)


def _constant(value: object) -> Answer:
    async def answer(_: Request) -> Response:
        return JSONResponse(value)

    return answer


async def _json(request: Request) -> Json:
    """Return the JSON object of a request; an empty one when it sent something else or too much."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _BODY_LIMIT:
            return {}
    return mapping(json_value(bytes(body), limit=_BODY_LIMIT)) or {}


def _new_id(comfyui: ComfyUI, asked: object) -> str:
    """Return the id that a client chose for its prompt, unless a job has it already."""
    chosen = word(asked, limit=_WORD_LIMIT)
    return chosen if chosen and comfyui.find(chosen) is None else str(uuid.uuid4())


def _count(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 7 else default  # noqa: PLR2004 - a page


def _remembered(job: Job) -> Json:
    finished = job.state == "completed"
    status = {"status_str": "success" if finished else "error", "completed": finished, "messages": job.messages}
    return {"prompt": job.row(), "outputs": job.outputs, "status": status, "meta": {}}


def _summary(job: Job) -> Json:
    pictures = [
        image for output in job.outputs.values() for image in items((mapping(output) or {}).get("images")) or []
    ]
    return {
        "id": job.id,
        "status": job.state,
        "create_time": job.created,
        "execution_start_time": job.started,
        "execution_end_time": job.ended,
        "outputs_count": len(pictures),
        "preview_output": pictures[0] if pictures else None,
    }
