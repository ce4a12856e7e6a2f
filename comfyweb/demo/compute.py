"""Compute Engine's REST over the world, under /compute/v1."""

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from comfyweb.demo import render
from comfyweb.demo.bodies import object_in, permissions_in
from comfyweb.demo.box import Box
from comfyweb.demo.faults import BAD_GATEWAY, LOST_ANSWER, PERMISSIONS, REFUSALS
from comfyweb.demo.listing import page
from comfyweb.demo.model import Machine, Operation, Refusal
from comfyweb.demo.world import PROJECT, World

LONGEST_BODY = 2 * 1024 * 1024
LONGEST_WAIT_SECONDS = 120
SERIAL_PORTS = range(1, 5)

Answer = Mapping[str, Any]
Act = Callable[[World, Machine, Mapping[str, Any]], Operation]


def html_error(status: int, title: str) -> HTMLResponse:
    """Answer as Google's front does when the API itself is not reached."""
    return HTMLResponse(
        f"<!DOCTYPE html><html lang=en><title>Error {status} ({title})!!1</title><p><b>{status}.</b> {title}.</html>",
        status,
    )


class Compute:
    """The routes. Each call first meets the faults that wait for its verb."""

    def __init__(self, box: Box) -> None:
        self._box = box

    def routes(self) -> list[Route]:
        """All calls, by Compute Engine's own paths."""
        zone = "/compute/v1/projects/{project}/zones/{zone}"
        machine = f"{zone}/instances/{{instance}}"
        operation = f"{zone}/operations/{{operation}}"
        return [
            self._route("GET", "/compute/v1/projects/{project}", "projects.get", self._project),
            self._route("GET", "/compute/v1/projects/{project}/zones", "zones.list", self._zones),
            self._route("GET", zone, "zones.get", self._zone),
            self._route(
                "GET", "/compute/v1/projects/{project}/aggregated/instances", "aggregatedList", self._everywhere
            ),
            self._route("GET", f"{zone}/instances", "list", self._instances),
            self._route("GET", machine, "get", self._instance),
            self._route("GET", f"{machine}/getGuestAttributes", "getGuestAttributes", self._guest_attributes),
            self._route("GET", f"{machine}/serialPort", "getSerialPortOutput", self._serial),
            self._route("POST", f"{machine}/testIamPermissions", "testIamPermissions", self._permissions),
            self._change(f"{machine}/start", "start", lambda world, found, _: world.start(found)),
            self._change(f"{machine}/stop", "stop", lambda world, found, _: world.stop(found)),
            self._change(f"{machine}/reset", "reset", lambda world, found, _: world.reset(found)),
            self._change(
                f"{machine}/setMetadata", "setMetadata", lambda world, found, body: world.set_metadata(found, body)
            ),
            self._change(
                f"{machine}/setScheduling",
                "setScheduling",
                lambda world, found, body: world.set_scheduling(found, body),
            ),
            self._route("GET", f"{zone}/operations", "operations.list", self._operations),
            self._route("GET", operation, "operations.get", self._operation),
            self._route("POST", f"{operation}/wait", "operations.wait", self._wait),
        ]

    # -- every call ----------------------------------------------------------------------------------------------------

    def _route(self, method: str, path: str, verb: str, answer: Callable[[Request], Awaitable[Answer]]) -> Route:
        @functools.wraps(answer)
        async def endpoint(request: Request) -> Response:
            fault = self._box.world.faults.take(verb, operation=False)
            if fault and fault.kind == BAD_GATEWAY:
                return html_error(502, "Server Error")
            try:
                if fault and fault.kind in REFUSALS:
                    raise REFUSALS[fault.kind](verb, _resource(request))
                if request.path_params["project"] != PROJECT:
                    raise Refusal.not_found(f"projects/{request.path_params['project']}")
                found = await answer(request)
            except Refusal as refused:
                return JSONResponse(render.refusal(refused), refused.status)
            if fault and fault.kind == LOST_ANSWER:
                return html_error(504, "Gateway Timeout")
            return JSONResponse(found)

        return Route(path, endpoint, methods=[method])

    def _change(self, path: str, verb: str, act: Act) -> Route:
        async def answer(request: Request) -> Answer:
            body = await body_of(request)
            world = self._box.world
            machine = world.machine(request.path_params["zone"], request.path_params["instance"])
            operation = world.register.once(
                request.query_params.get("requestId", ""), lambda: act(world, machine, body)
            )
            return render.operation(operation, world.now)

        return self._route("POST", path, verb, answer)

    def _machine(self, request: Request) -> Machine:
        return self._box.world.machine(request.path_params["zone"], request.path_params["instance"])

    # -- answers -------------------------------------------------------------------------------------------------------

    async def _project(self, _request: Request) -> Answer:
        return render.project(self._box.world)

    async def _zones(self, request: Request) -> Answer:
        world = self._box.world
        items, token = page([render.zone(name, world) for name in world.zones], request.query_params)
        return render.listing("compute#zoneList", f"{render.PROJECT_LINK}/zones", items, token)

    async def _zone(self, request: Request) -> Answer:
        world = self._box.world
        return render.zone(world.zone(request.path_params["zone"]), world)

    async def _instances(self, request: Request) -> Answer:
        world = self._box.world
        zone = world.zone(request.path_params["zone"])
        machines = [machine for machine in world.machines.values() if machine.zone == zone]
        items, token = page([render.instance(machine) for machine in machines], request.query_params)
        return render.listing("compute#instanceList", f"{render.zone_link(zone)}/instances", items, token)

    async def _everywhere(self, request: Request) -> Answer:
        world = self._box.world
        items, token = page([render.instance(machine) for machine in world.machines.values()], request.query_params)
        scoped: dict[str, Any] = {}
        for zone in world.zones:
            here = [item for item in items if item["zone"] == render.zone_link(zone)]
            scoped[f"zones/{zone}"] = {"instances": here} if here else {"warning": _nothing_in(zone)}
        link = f"{render.PROJECT_LINK}/aggregated/instances"
        return {**render.listing("compute#instanceAggregatedList", link, [], token), "items": scoped}

    async def _instance(self, request: Request) -> Answer:
        return render.instance(self._machine(request))

    async def _guest_attributes(self, request: Request) -> Answer:
        machine = self._machine(request)
        if not machine.guest_attributes_enabled:
            raise Refusal(412, "conditionNotMet", "Guest attributes endpoint access is disabled.")
        query = request.query_params
        path, key = query.get("queryPath", ""), query.get("variableKey", "")
        if bool(path) == bool(key):
            raise Refusal.invalid("Exactly one of 'queryPath' and 'variableKey' must be specified.")
        return render.guest_attributes(machine, path, key)

    async def _serial(self, request: Request) -> Answer:
        machine = self._machine(request)
        port = _integer(request, "port", 1)
        if port not in SERIAL_PORTS:
            raise Refusal.invalid(f"Invalid value for field 'port': '{port}'. Must be between 1 and 4.")
        if not machine.boot_id:
            path = render.machine_link(machine).removeprefix(f"{render.ROOT}/")
            raise Refusal(400, "resourceNotReady", f"The resource '{path}' is not ready")
        return render.serial(machine, _integer(request, "start", 0))

    async def _permissions(self, request: Request) -> Answer:
        self._machine(request)
        asked = permissions_in(await body_of(request))
        withheld = self._box.world.faults.withheld()
        known = {*PERMISSIONS.values(), "iam.serviceAccounts.actAs"}
        granted = [name for name in asked if name in known and name not in withheld]
        return {"permissions": granted} if granted else {}

    async def _operations(self, request: Request) -> Answer:
        world = self._box.world
        zone = world.zone(request.path_params["zone"])
        newest_first = [found for found in reversed(world.operations.values()) if found.zone == zone]
        items, token = page([render.operation(found, world.now) for found in newest_first], request.query_params)
        return render.listing("compute#operationList", f"{render.zone_link(zone)}/operations", items, token)

    async def _operation(self, request: Request) -> Answer:
        world = self._box.world
        found = world.operation(request.path_params["zone"], request.path_params["operation"])
        return render.operation(found, world.now)

    async def _wait(self, request: Request) -> Answer:
        found = self._box.world.operation(request.path_params["zone"], request.path_params["operation"])
        await self._box.until(
            lambda: found.status(self._box.world.now) == "DONE",
            LONGEST_WAIT_SECONDS,
            given_up=request.is_disconnected,
        )
        return render.operation(found, self._box.world.now)


async def body_of(request: Request) -> dict[str, Any]:
    """Read the JSON object that was sent. Raises `Refusal`, also for one that is too large."""
    raw = b""
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > LONGEST_BODY:
            raise Refusal(413, "uploadTooLarge", "Request payload size exceeds the limit.")
    return object_in(raw)


def _resource(request: Request) -> str:
    """Find the path of what the call is about, without its verb."""
    names = request.url.path.removeprefix("/compute/v1/").split("/")
    return "/".join(names[: len(names) // 2 * 2])


def _integer(request: Request, name: str, default: int) -> int:
    said = request.query_params.get(name, str(default))
    try:
        return int(said)
    except ValueError:
        raise Refusal.invalid(f"Invalid value at '{name}' (TYPE_INT64), \"{said}\"") from None


def _nothing_in(zone: str) -> dict[str, Any]:
    scope = f"zones/{zone}"
    return {
        "code": "NO_RESULTS_ON_PAGE",
        "message": f"There are no results for scope '{scope}' on this page.",
        "data": [{"key": "scope", "value": scope}],
    }
