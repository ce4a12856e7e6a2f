"""The REST API, put together. It can be imported where there are no settings: `services` is asked at each request."""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from comfyweb.api import auth, docs, health, machine, metrics
from comfyweb.api.body import BodyLimit
from comfyweb.api.events import ending
from comfyweb.api.frame import Frame
from comfyweb.api.guard import Guard
from comfyweb.api.openapi import SUMMARY, TITLE, complete
from comfyweb.api.problems import explain_errors
from comfyweb.api.status import StatusFirst

VERSION = "1"
OURS = frozenset({"/api", "/healthz", "/readyz", metrics.PATH})
FOLDER = "/api/"


class Api(FastAPI):
    """FastAPI, with the rest of the document, and the status in front of all its layers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._first = StatusFirst(super().__call__)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._first(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, made at the first call."""
        if self.openapi_schema is None:
            self.openapi_schema = complete(super().openapi())
        return self.openapi_schema


def create_api() -> FastAPI:
    """Return the whole API as one ASGI application."""
    api = Api(
        title=TITLE,
        summary=SUMMARY,
        version=VERSION,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_name,
    )
    for part in (auth, machine, health, metrics, docs):
        api.include_router(part.router)
    explain_errors(api)
    for layer in (BodyLimit, Guard, Frame):  # from the inside out
        api.add_middleware(layer)
    return api


def _name(route: APIRoute) -> str:
    return route.name


def in_front_of(page: ASGIApp) -> ASGIApp:
    """Return an application that answers the API's paths itself and leaves all else to `page`.

    Reflex mounts an API behind its own CORS layers and lets its static files catch what the API would refuse with 405,
    so the API stands before it instead.
    """
    api = create_api()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            ending.watch()
        ours = scope["type"] == "http" and (scope["path"] in OURS or scope["path"].startswith(FOLDER))
        await (api if ours else page)(scope, receive, send)

    return serve
