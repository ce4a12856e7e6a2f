"""What the page's buttons do, for programs: the same functions of the same controller."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from comfyweb.api.answers import Done, Ticket
from comfyweb.api.caller import Caller, token_of
from comfyweb.api.events import EventStream, events
from comfyweb.control.controller import LONGEST_EXTENSION, SHORTEST_EXTENSION
from comfyweb.control.services import services
from comfyweb.machine.model import StopMode

router = APIRouter(prefix="/api", tags=["Machine"])


class Stop(BaseModel):
    """How to stop."""

    mode: Annotated[
        Literal["drain", "now"], Field(description="`drain`: running and queued prompts finish first; `now`: they die")
    ] = "drain"


class Extension(BaseModel):
    """How much longer the machine shall stay on."""

    minutes: Annotated[
        float,
        Field(strict=True, ge=SHORTEST_EXTENSION, le=LONGEST_EXTENSION, allow_inf_nan=False, description="minutes"),
    ]


@router.post("/instance/start")
async def start(session: Caller) -> Done:
    """Ask for the machine to be on. Changes nothing while it is; while it stops, it is started afterwards."""
    return _done(await services.controller.start(session))


@router.post("/instance/stop")
async def stop(session: Caller, body: Stop | None = None) -> Done:
    """Ask for the machine to be off. Without a body prompts finish first, which with none is at once."""
    return _done(await services.controller.stop(session, StopMode(body.mode) if body else StopMode.DRAIN))


@router.post("/instance/keep-alive")
async def keep_alive(session: Caller) -> Done:
    """Count as use, so that the idle time begins anew. 409 while the machine is not in use."""
    return _done(await services.controller.keep_alive(session))


@router.post("/instance/extend")
async def extend(session: Caller, body: Extension) -> Done:
    """Put the idle stop off by so many minutes. 409 while the machine is not in use."""
    return _done(await services.controller.extend(session, body.minutes))


@router.post("/comfyui/ticket")
async def ticket(session: Caller) -> Ticket:
    """Return the address that logs one browser tab in to ComfyUI. 409 while ComfyUI is not ready."""
    return Ticket(url=await services.controller.ticket(session))


@router.get("/instance/events", status_code=200, response_class=EventStream)
async def instance_events(request: Request, session: Caller) -> EventStream:
    """Follow the machine: `data` is the status now and at each change, `id` its entity tag.

    A comment comes every 15 seconds of silence. The event `logged-out` ends the stream when the session ends; one that
    is not read for a minute is ended too. A login may have 50 at once.
    """
    return EventStream(events(token_of(request.scope)), session.jti)


def _done(message: str) -> Done:
    return Done(success=True, message=message, status=str(services.controller.publisher.snapshot.body["status"]))
