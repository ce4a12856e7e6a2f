"""Whether the process lives, and whether it can work: for supervisors, load balancers and people with a problem."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import APIRouter, Request
from starlette.responses import Response

from comfyweb.api.answers import Alive, Ready
from comfyweb.api.caller import session_met, token_of
from comfyweb.api.events import ending
from comfyweb.api.problems import NOT_STARTED, RETRY_SECONDS, problem
from comfyweb.control.controller import OK
from comfyweb.control.services import NotStarted, services

router = APIRouter(tags=["Health"])

ENDING = "comfyweb is shutting down"
DEGRADED = "degraded"
# Whoever took the page out of reach because Google fails would take away what explains it.
EXPLAINED = frozenset({"compute-engine"})
NOT_READY = "Something that comfyweb needs does not answer."


@router.get("/healthz")
async def healthz() -> Alive:
    """Answer while the process can."""
    return Alive(status=OK)


@router.get("/readyz", response_model=Ready)
async def readyz(request: Request) -> Ready | Response:
    """Name each thing that comfyweb needs; 503 when it can't serve, and from when the process is told to end.

    `database` takes writes, `loop` has ended its last turn well: without them it is 503. `compute-engine` has answered
    when last asked: without it the page says what is wrong, so it stays 200, as `degraded`. Only who is logged in hears
    what is wrong.
    """
    if ending.begun:
        return _not_ready({"comfyweb": ENDING})
    try:
        found = await services.controller.dependencies()
        trusted = await session_met(token_of(request.scope)) is not None
    except NotStarted:
        found, trusted = {"comfyweb": NOT_STARTED}, True
    failing = {name for name, state in found.items() if state != OK}
    told = {name: state if trusted or name not in failing else "failing" for name, state in found.items()}
    if failing - EXPLAINED:
        return _not_ready(told)
    return Ready(status=DEGRADED if failing else OK, dependencies=told)


def _not_ready(told: Mapping[str, str]) -> Response:
    return problem(HTTPStatus.SERVICE_UNAVAILABLE, NOT_READY, headers={"Retry-After": RETRY_SECONDS}, dependencies=told)
