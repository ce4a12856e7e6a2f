"""The metadata server on its bad days, between the guest and the emulator."""

import asyncio
from enum import Enum, auto

from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class Sky(Enum):
    """How the metadata server does. `SILENT` takes the question and never answers."""

    CLEAR = auto()
    REFUSING = auto()
    HTML = auto()
    SILENT = auto()


class Weather:
    """Wraps the emulator: what the guest asks meets `sky`, what everybody else asks doesn't."""

    def __init__(self) -> None:
        self.sky = Sky.CLEAR
        self.asked = 0
        self._app: ASGIApp | None = None

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Return the app as the weather lets it through."""
        self._app = app
        return self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        assert self._app is not None
        by_guest = scope["type"] == "http" and scope["path"].startswith("/computeMetadata")
        self.asked += by_guest
        match self.sky if by_guest else Sky.CLEAR:
            case Sky.CLEAR:
                await self._app(scope, receive, send)
            case Sky.REFUSING:
                await PlainTextResponse("Forbidden", 403)(scope, receive, send)
            case Sky.HTML:
                page = "<!DOCTYPE html><title>Sign in</title><p>This network wants you to sign in.</p>"
                await HTMLResponse(page, headers={"Metadata-Flavor": "Google"})(scope, receive, send)
            case Sky.SILENT:
                while (await receive())["type"] != "http.disconnect":
                    await asyncio.sleep(0)
