"""Holds every answer of the API: no cache stores it, and what nobody foresaw becomes a 500 that tells nothing."""

import logging
import uuid
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from comfyweb.api.problems import NOT_STARTED, problem, unavailable
from comfyweb.control.services import NotStarted
from comfyweb.logs import current

log = logging.getLogger(__name__)


class Frame:
    """ASGI layer around the others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; log a failure under an id that the answer carries, and the traceback nowhere else."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_unstored(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).setdefault("cache-control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, send_unstored)
        except NotStarted:
            await unavailable(NOT_STARTED)(scope, receive, send_unstored)
        except Exception:
            request_id = current("request_id") or uuid.uuid4().hex
            log.exception("%s %s failed, request %s", scope["method"], scope["path"], request_id)
            if begun:
                raise  # Half an answer has left; only the server can cut it off.
            words = f"Something went wrong here. The log of comfyweb says what, under {request_id}."
            answer = problem(HTTPStatus.INTERNAL_SERVER_ERROR, words, request_id=request_id)
            await answer(scope, receive, send_unstored)
