"""`python -m bench.served`: comfyweb as `python -m comfyweb` serves it, with two paths more, for measuring only.

`POST /bench/publish` publishes a snapshot that carries the moment of its publication: the monotonic clock is the same
in all processes of a machine. `GET /bench/bare` is a bare Starlette endpoint on the same server.
"""

import sys
import time
from typing import Any
from unittest.mock import patch

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

MARK = "bench@"


async def publish(_: Request) -> Response:
    """Publish the newest snapshot again, with the time."""
    from comfyweb.control.services import services  # noqa: PLC0415 - the supervising process imports no app
    from comfyweb.machine.snapshot import Snapshot  # noqa: PLC0415 - as above

    publisher = services.controller.publisher
    now = publisher.snapshot
    stamped: dict[str, Any] = now.body | {"notices": [f"{MARK}{time.monotonic():.6f}@"]}
    await publisher.publish(Snapshot(phase=now.phase, body=stamped))
    return JSONResponse({"published": True})


async def bare(_: Request) -> Response:
    """Answer JSON, as little as possible."""
    return JSONResponse({"status": "RUNNING"})


def serve() -> ASGIApp:
    """Return comfyweb's app behind the two paths."""
    from comfyweb.comfyweb import serve as serve_comfyweb  # noqa: PLC0415 - it reads settings and the built page

    inner = serve_comfyweb()
    extra = Starlette(
        routes=[Route("/bench/publish", publish, methods=["POST"]), Route("/bench/bare", bare, methods=["GET"])]
    )

    async def site(scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and scope["path"].startswith("/bench/")
        await (extra if ours else inner)(scope, receive, send)

    return site


def main() -> int:
    """Serve with the very options of `python -m comfyweb`."""
    from granian.server import Server  # noqa: PLC0415 - not in the worker

    from comfyweb import __main__ as comfyweb  # noqa: PLC0415 - not in the worker

    make: Any = Server

    def server(**options: Any) -> Any:
        return make(**(options | {"target": "bench.served:serve"}))

    with patch.object(comfyweb, "Server", server):
        return comfyweb.main()


if __name__ == "__main__":
    sys.exit(main())
