"""Compute Engine for the simulation: the emulator's model, asked by comfyweb's own calls without the HTTP between.

What the model says is rendered as the emulator renders it, becomes the messages of Google's client, and is read by
`cloud/`; refusals become the client's exceptions. Left out are the client's transport and the threads.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from email.utils import format_datetime
from typing import Any, TypeVar, cast

import requests
from google.api_core.exceptions import GoogleAPICallError, from_http_response
from google.cloud import compute_v1

from comfyweb.cloud.cloud_error import CloudError
from comfyweb.cloud.compute import ComputeEngine
from comfyweb.cloud.google_calls import GoogleCalls
from comfyweb.cloud.google_errors import cloud_error
from comfyweb.demo import render, render_resources
from comfyweb.demo.bodies import permissions_in
from comfyweb.demo.faults import BAD_GATEWAY, LOST_ANSWER, PERMISSIONS, REFUSALS
from comfyweb.demo.model import Machine, Operation, Refusal
from comfyweb.demo.world import MACHINE, PROJECT, World
from tests.simulation.facts import Facts
from tests.simulation.outside import Outside
from tests.simulation.process import Process

T = TypeVar("T")
Request = Mapping[str, Any]

TIMEOUT_SECONDS = 15.0


class Calls(GoogleCalls):
    """`GoogleCalls` over the model: how a call is made up and what its answer means is comfyweb's own code."""

    def __init__(self, outside: Outside, facts: Facts) -> None:
        super().__init__(
            project=PROJECT,
            instance=MACHINE,
            endpoint="http://localhost",  # Never called: what would is replaced below.
            credentials_file=None,
            count=_uncounted,
            timeout_seconds=TIMEOUT_SECONDS,
        )
        self._outside = outside
        self._facts = facts
        self._rendered: tuple[dict[str, Any], compute_v1.Instance] | None = None
        self._get_instance = cast("Any", self._answering("get", self._instance_message))
        self._get_operation = cast("Any", self._answering("operations.get", self._operation_message))
        self._get_guest_attributes = cast("Any", self._answering("getGuestAttributes", self._attributes_message))
        self._test_permissions = cast("Any", self._answering("testIamPermissions", self._permissions_message))
        self._verbs = cast(
            "Any",
            {
                "start": self._changing("start", lambda world, machine, _: world.start(machine)),
                "stop": self._changing("stop", lambda world, machine, _: world.stop(machine)),
                "setMetadata": self._changing(
                    "setMetadata",
                    lambda world, machine, r: world.set_metadata(machine, _json(r["metadata_resource"])),
                ),
                "setScheduling": self._changing(
                    "setScheduling",
                    lambda world, machine, r: world.set_scheduling(machine, _json(r["scheduling_resource"])),
                ),
            },
        )

    def _answering(self, verb: str, answer: Callable[[Request], T]) -> Callable[..., T]:
        """Meet the faults that wait for this verb, as `demo.compute` does, then answer."""

        def call(request: Request, *, retry: None, timeout: float) -> T:
            del retry, timeout
            fault = self._outside.world.faults.take(verb, operation=False)
            if fault and fault.kind == BAD_GATEWAY:
                raise _html(502)
            try:
                if fault and fault.kind in REFUSALS:
                    raise REFUSALS[fault.kind](verb, f"projects/{PROJECT}/zones/{request['zone']}/instances/{MACHINE}")
                found = answer(request)
            except Refusal as refused:
                raise _refused(refused) from refused
            if fault and fault.kind == LOST_ANSWER:
                raise _html(504)
            return found

        return call

    def _changing(
        self, verb: str, act: Callable[[World, Machine, Request], Operation]
    ) -> Callable[..., compute_v1.Operation]:
        def answer(request: Request) -> compute_v1.Operation:
            world = self._outside.world
            machine = world.machine(request["zone"], request["instance"])
            request_id = str(request["request_id"])
            opened: list[Operation] = []

            def once() -> Operation:
                opened.append(act(world, machine, request))
                return opened[0]

            operation = world.register.once(request_id, once)
            for each in opened:
                self._facts.operation_opened(each)
            self._outside.changed()
            return compute_v1.Operation.from_json(json.dumps(render.operation(operation, world.now)))

        return self._answering(verb, answer)

    def _instance_message(self, request: Request) -> compute_v1.Instance:
        self._answer.date = format_datetime(self._outside.now(), usegmt=True)
        found = render_resources.instance(self._outside.world.machine(request["zone"], request["instance"]))
        if self._rendered is None or self._rendered[0] != found:  # Reading is slow, and at rest nothing changes.
            self._rendered = json.loads(json.dumps(found)), compute_v1.Instance.from_json(json.dumps(found))
        return self._rendered[1]

    def _operation_message(self, request: Request) -> compute_v1.Operation:
        world = self._outside.world
        found = render.operation(world.operation(request["zone"], request["operation"]), world.now)
        return compute_v1.Operation.from_json(json.dumps(found))

    def _attributes_message(self, request: Request) -> compute_v1.GuestAttributes:
        machine = self._outside.world.machine(request["zone"], request["instance"])
        if not machine.guest_attributes_enabled:
            raise Refusal(403, "forbidden", "Guest attributes endpoint access is disabled.")
        found = render_resources.guest_attributes(machine, request["query_path"], "")
        return compute_v1.GuestAttributes.from_json(json.dumps(found))

    def _permissions_message(self, request: Request) -> compute_v1.TestPermissionsResponse:
        asked = permissions_in(_json(request["test_permissions_request_resource"]))
        withheld = self._outside.world.faults.withheld()
        granted = [name for name in asked if name in PERMISSIONS.values() and name not in withheld]
        return compute_v1.TestPermissionsResponse(permissions=granted)


class SimulatedCompute(ComputeEngine):
    """`ComputeEngine` whose calls take virtual time and during which the process can be killed."""

    def __init__(self, outside: Outside, facts: Facts, process: Process) -> None:
        super().__init__(project=PROJECT, instance=MACHINE, endpoint=None, credentials_file=None, now=self._when_sent)
        self._outside = outside
        self._facts = facts
        self._process = process
        self._google_calls = Calls(outside, facts)
        self._sent = outside.now()

    def _when_sent(self) -> datetime:
        return self._sent

    async def look(self, zone: str) -> Any:
        try:
            seen = await super().look(zone)
        except CloudError as error:
            self._facts.looked(self._sent, error.fault)
            raise
        self._facts.looked(self._sent, None)
        return seen

    async def guest_attributes(self, zone: str) -> dict[str, str]:
        try:
            found = await super().guest_attributes(zone)
        except CloudError:
            self._facts.deaf()
            raise
        self._facts.read_attributes()
        return found

    async def _run(self, call: Callable[[GoogleCalls], T]) -> T:
        await self._process.step()
        self._sent = self._outside.now()
        took = self._outside.latency()
        began = asyncio.get_running_loop().time()
        try:
            hangs = self._outside.hangs
            if hangs == "before":
                await asyncio.sleep(TIMEOUT_SECONDS)
                raise requests.exceptions.ConnectTimeout("simulated")  # noqa: TRY301 - as the client would, amid the call
            await asyncio.sleep(took / 2)
            self._outside.advance()
            answer = call(self._google_calls)
            if hangs == "after":
                await asyncio.sleep(TIMEOUT_SECONDS)
                raise requests.exceptions.ReadTimeout("simulated")  # noqa: TRY301 - as above
            await asyncio.sleep(took / 2)
        except Exception as error:
            if not isinstance(error, CloudError | GoogleAPICallError | requests.RequestException):
                self._facts.break_("the-simulation-itself", repr(error))
            failure = cloud_error(error)
            self._facts.say(f"Google refused: {failure.fault.code}")
            if failure.fault.code == "rate-limit":
                self._facts.asked_for_fewer_calls_at = self._facts.now
            raise failure from error
        finally:
            self._facts.waited(began)
        return answer


def _uncounted(_method: str, _outcome: str) -> None:
    """Count no calls: the invariants do."""


def _json(message: Any) -> dict[str, Any]:
    return json.loads(type(message).to_json(message, always_print_fields_with_no_presence=False))


def _refused(refusal: Refusal) -> Exception:
    return _http(refusal.status, json.dumps(render.refusal(refusal)), "application/json")


def _html(status: int) -> Exception:
    return _http(status, f"<!DOCTYPE html><title>Error {status}</title>", "text/html")


def _http(status: int, body: str, kind: str) -> Exception:
    response = requests.Response()
    response.status_code = status
    response._content = body.encode()
    response.headers["Content-Type"] = kind
    response.request = requests.Request("GET", "https://compute.googleapis.com/simulated").prepare()
    return from_http_response(response)
