"""The control endpoint: makes the emulated cloud misbehave, and shows what it is doing. For loopback only."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from comfyweb.demo import render
from comfyweb.demo.box import Box
from comfyweb.demo.clock import ManualClock
from comfyweb.demo.faults import KINDS, VERBS, Fault
from comfyweb.demo.model import Machine, Refusal, Status
from comfyweb.demo.rest import body_of
from comfyweb.demo.world import MACHINE, World

SOMEBODY = "somebody@example.com"
"""Who acts when a machine is started, stopped or deleted elsewhere, as in Google's console."""

SHOWN_OPERATIONS = 20
PAGE = Path(__file__).parent / "page"
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


class Control:
    """The routes."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def routes(self) -> list[Route]:
        """List them: the page with its files, the state, and what can be done to it."""
        return [
            Route("/", _file("index.html"), methods=["GET"]),
            Route("/control/page.css", _file("page.css"), methods=["GET"]),
            Route("/control/page.js", _file("page.js"), methods=["GET"]),
            Route("/control", self._state, methods=["GET"]),
            Route("/control/fault", self._fault, methods=["POST"]),
            Route("/control/fault", self._clear, methods=["DELETE"]),
            Route("/control/preempt", self._preempt, methods=["POST"]),
            Route("/control/machine", self._machine, methods=["POST"]),
            Route("/control/idle", self._idle, methods=["POST"]),
            Route("/control/clock", self._clock, methods=["POST"]),
        ]

    async def _state(self, _request: Request) -> Response:
        return self._answer()

    def _answer(self) -> Response:
        world = self._box.world
        operations = list(world.operations.values())[-SHOWN_OPERATIONS:]
        return JSONResponse(
            {
                "project": world.project,
                "now": world.now.isoformat(),
                "clock": "manual" if isinstance(self._box.clock, ManualClock) else "real",
                "zones": world.zones,
                "machines": [_machine(machine) for machine in world.machines.values()],
                "faults": [_fault(fault) for fault in world.faults.pending()],
                "operations": [render.operation(operation, world.now) for operation in reversed(operations)],
            }
        )

    async def _fault(self, request: Request) -> Response:
        body = await body_of(request)
        kind = _word(body, "kind", KINDS)
        verb = _word(body, "verb", {*VERBS, "*"}, "*")
        seconds = _number(body, "seconds") if "seconds" in body else None
        times = body.get("times", None if seconds else 1)
        if times is not None and (not isinstance(times, int) or isinstance(times, bool) or times < 1):
            raise Refusal.invalid("'times' is a number from 1, or null for ever")
        zones = body.get("zonesAvailable", "")
        if not isinstance(zones, str):
            raise Refusal.invalid("'zonesAvailable' is a comma separated list in a string")
        world = self._box.world
        until = world.now + timedelta(seconds=seconds) if seconds else None
        after = timedelta(seconds=_number(body, "after_seconds")) if "after_seconds" in body else None
        world.faults.add(Fault(kind=kind, verb=verb, times=times, until=until, after=after, zones_available=zones))
        return self._answer()

    async def _clear(self, _request: Request) -> Response:
        self._box.world.faults.clear()
        return self._answer()

    async def _preempt(self, request: Request) -> Response:
        body = await body_of(request)
        self._world(body).preempt(self._target(body))
        return self._answer()

    async def _machine(self, request: Request) -> Response:
        body = await body_of(request)
        world = self._world(body)
        match _word(body, "action", {"start", "stop", "delete", "create", "rename", "status"}):
            case "start":
                world.start(self._target(body), user=SOMEBODY)
            case "stop":
                world.stop(self._target(body), user=SOMEBODY)
            case "delete":
                world.delete(self._target(body), user=SOMEBODY)
            case "create":
                world.create(*_address(body, world.zones[0]))
            case "rename":
                target, (_, name) = self._target(body), _address({"name": body.get("to")}, "")
                world.rename(target, name)
            case _:
                world.put_in(self._target(body), Status(_word(body, "status", {status.value for status in Status})))
        return self._answer()

    async def _idle(self, request: Request) -> Response:
        self._box.guest.idle_in(_number(await body_of(request), "seconds_left"))
        return self._answer()

    async def _clock(self, request: Request) -> Response:
        clock = self._box.clock
        if not isinstance(clock, ManualClock):
            raise Refusal(409, "clockIsReal", "This cloud runs on the computer's clock, which nobody can move.")
        clock.advance(timedelta(seconds=_number(await body_of(request), "advance_seconds")))
        return self._answer()

    def _world(self, body: Mapping[str, Any]) -> World:
        name = body.get("project", self._box.world.project)
        if not isinstance(name, str):
            raise Refusal.invalid("'project' is a word")
        return self._box.cloud.project(name)

    def _target(self, body: Mapping[str, Any]) -> Machine:
        world = self._world(body)
        return world.machine(*_address(body, world.zones[0]))


def _file(name: str) -> Any:
    async def endpoint(_request: Request) -> Response:
        return FileResponse(PAGE / name, headers=PAGE_HEADERS)

    return endpoint


def _machine(machine: Machine) -> dict[str, Any]:
    return {
        "name": machine.name,
        "zone": machine.zone,
        "status": machine.status,
        "external_ip": machine.external_ip,
        "boot_id": machine.boot_id,
        "last_start": machine.last_start.isoformat() if machine.last_start else None,
        "terminates_at": machine.terminates_at.isoformat() if machine.terminates_at else None,
        "metadata": sorted(machine.metadata),
        "guest_attributes": machine.guest_attributes,
    }


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "kind": fault.kind,
        "verb": fault.verb,
        "times": fault.times,
        "until": fault.until.isoformat() if fault.until else None,
        "after_seconds": fault.after.total_seconds() if fault.after is not None else None,
        "zonesAvailable": fault.zones_available,
    }


def _address(body: Mapping[str, Any], zone: str) -> tuple[str, str]:
    where, name = body.get("zone", zone), body.get("name", MACHINE)
    if not isinstance(where, str) or not isinstance(name, str) or not name:
        raise Refusal.invalid("'zone' and 'name' are words")
    return where, name


def _word(body: Mapping[str, Any], name: str, known: "set[str] | frozenset[str]", default: str = "") -> str:
    said = body.get(name, default)
    if not isinstance(said, str) or said not in known:
        raise Refusal.invalid(f"'{name}' is one of: {', '.join(sorted(known))}")
    return said


def _number(body: Mapping[str, Any], name: str) -> float:
    said = body.get(name)
    if (
        isinstance(said, bool)
        or not isinstance(said, (int, float))
        or not 0 <= said <= timedelta(days=3660).total_seconds()
    ):
        raise Refusal.invalid(f"'{name}' is a number of seconds, at most ten years of them")
    return said
