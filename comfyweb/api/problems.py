"""Errors as `application/problem+json` (RFC 9457), each with `error`, the text that clients of the old system read."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from comfyweb.control.controller import NotNow, Unavailable

MEDIA_TYPE = "application/problem+json"
NOT_STARTED = "comfyweb has not started yet. Try again in a moment."
RETRY_SECONDS = "5"

WORDS = {
    HTTPStatus.NOT_FOUND: "There is nothing at this address. /api/docs lists what there is.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This address does not take that method; the Allow header lists those it takes.",
    HTTPStatus.BAD_REQUEST: "The body is not JSON.",
}


def problem(status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """Return an error answer. `detail` is for a person; `more` are further members of the object."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "error": detail,
    } | more
    return Response(json.dumps(body), status, headers, MEDIA_TYPE)


def unauthorized() -> Response:
    """Return what a caller without a live session hears, whatever the reason."""
    return problem(
        HTTPStatus.UNAUTHORIZED,
        "Log in first: there is no token, or its session has ended.",
        headers={"WWW-Authenticate": "Bearer"},
        authenticated=False,
    )


def unavailable(words: str) -> Response:
    """Return what a caller hears while something that is needed does not answer."""
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, words, headers={"Retry-After": RETRY_SECONDS})


def explain_errors(api: FastAPI) -> None:
    """Let every error of `api` that somebody foresaw leave in this form; `frame.py` has the others."""
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(NotNow, _not_now)
    api.add_exception_handler(Unavailable, _unavailable)


async def _http(_: Request, error: Exception) -> Response:
    known = cast("HTTPException", error)
    return problem(known.status_code, WORDS.get(HTTPStatus(known.status_code), known.detail), headers=known.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    """Name each wrong place. What was sent is not repeated: it may be a password."""
    wrong = [
        {"where": ".".join(str(part) for part in one["loc"]), "what": str(one["msg"])}
        for one in cast("RequestValidationError", error).errors()
    ]
    detail = "; ".join(f"{one['where']}: {one['what']}" for one in wrong)
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=wrong)


async def _not_now(_: Request, error: Exception) -> Response:
    return problem(HTTPStatus.CONFLICT, cast("NotNow", error).words)


async def _unavailable(_: Request, error: Exception) -> Response:
    return unavailable(cast("Unavailable", error).words)
