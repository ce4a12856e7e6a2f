"""`/metrics` for Prometheus, behind a token of its own: who watches needs no login, and may start nothing."""

import asyncio
import hmac
import importlib
from http import HTTPStatus

from fastapi import APIRouter, Request
from pydantic import SecretStr
from starlette.responses import PlainTextResponse, Response

from comfyweb.api.caller import Token, token_of
from comfyweb.api.problems import problem
from comfyweb.control.services import services

router = APIRouter(tags=["Health"])

PATH = "/metrics"
# prometheus_client's CONTENT_TYPE_LATEST, without importing it.
MEDIA_TYPE = "text/plain; version=1.0.0; charset=utf-8"
WRONG = "METRICS_TOKEN has to be set, and to be sent as Authorization: Bearer."


@router.get(PATH, response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """Return what Prometheus collects, in its text format. 401 for all while METRICS_TOKEN is not set."""
    if not _is(token_of(request.scope), services.settings.metrics_token):
        return problem(HTTPStatus.UNAUTHORIZED, WRONG, headers={"WWW-Authenticate": "Bearer"})
    # The library takes a tenth of a second to import, which the page would wait for: only where it is wanted, aside.
    exposition = await asyncio.to_thread(importlib.import_module, "comfyweb.api.exposition")
    return Response(exposition.exposed(), media_type=MEDIA_TYPE)


def _is(token: Token | None, wanted: SecretStr | None) -> bool:
    """Compare in a time that doesn't tell how much of it is right."""
    if token is None or token.by_cookie or wanted is None:
        return False
    return hmac.compare_digest(token.text.encode(), wanted.get_secret_value().encode())
