"""Compute Engine's REST: machines and operations. `compute_storage` and `compute_catalog` have the rest."""

from starlette.routing import Route

from comfyweb.demo import render
from comfyweb.demo import render_resources as write
from comfyweb.demo.addresses import NETWORK_INTERFACE
from comfyweb.demo.box import Box
from comfyweb.demo.compute_catalog import catalog_routes
from comfyweb.demo.compute_storage import storage_routes
from comfyweb.demo.faults import PERMISSIONS
from comfyweb.demo.model import Machine, Operation, Refusal
from comfyweb.demo.rest import Act, Answer, Call, Handler, aggregated, change, listed, route

LONGEST_WAIT_SECONDS = 120
SERIAL_PORTS = range(1, 5)


def compute_routes(box: Box) -> list[Route]:
    """Make all routes, by Compute Engine's own paths."""
    return [*_machines(box), *_operations(box), *storage_routes(box), *catalog_routes(box)]


# -- machines ----------------------------------------------------------------------------------------------------------


def _machine(call: Call) -> Machine:
    return call.world.machine(call.path["zone"], call.path["instance"])


def _machines(box: Box) -> list[Route]:
    answers: dict[str, Handler] = {
        "get": lambda call: write.instance(_machine(call)),
        "list": _instances,
        "aggregatedList": _everywhere,
        "getEffectiveFirewalls": _firewalls,
        "getGuestAttributes": _guest_attributes,
        "getSerialPortOutput": _serial,
        "testIamPermissions": _permissions,
    }
    changes: dict[str, Act] = {
        "insert": lambda call: call.world.insert(call.path["zone"], call.body, user=call.user),
        "delete": lambda call: call.world.delete(_machine(call), user=call.user),
        "start": lambda call: call.world.start(_machine(call), user=call.user),
        "stop": lambda call: call.world.stop(_machine(call), user=call.user),
        "reset": lambda call: call.world.reset(_machine(call), user=call.user),
        "setMetadata": lambda call: call.world.set_metadata(_machine(call), call.body, user=call.user),
        "setLabels": lambda call: call.world.set_labels(_machine(call), call.body, user=call.user),
        "setScheduling": lambda call: call.world.set_scheduling(_machine(call), call.body, user=call.user),
        "setMachineType": lambda call: call.world.set_machine_type(_machine(call), call.body, user=call.user),
        "attachDisk": lambda call: call.world.attach_disk(_machine(call), call.body, user=call.user),
        "detachDisk": lambda call: call.world.detach_disk(_machine(call), call.query["deviceName"], user=call.user),
        "addAccessConfig": lambda call: call.world.add_access_config(
            _machine(call), call.query["networkInterface"], call.body, user=call.user
        ),
        "deleteAccessConfig": lambda call: call.world.delete_access_config(
            _machine(call), call.query["networkInterface"], call.query["accessConfig"], user=call.user
        ),
    }
    return [
        *(route(box, f"instances.{name}", answer) for name, answer in answers.items()),
        *(change(box, f"instances.{name}", act) for name, act in changes.items()),
    ]


def _instances(call: Call) -> Answer:
    zone = call.world.zone(call.path["zone"])
    found = [write.instance(machine) for machine in call.world.machines.values() if machine.zone == zone]
    return listed(call, "compute#instanceList", f"zones/{zone}/instances", found)


def _everywhere(call: Call) -> Answer:
    found = [write.instance(machine) for machine in call.world.machines.values()]
    scopes = [f"zones/{zone}" for zone in call.world.zones]
    return aggregated(call, "compute#instanceAggregatedList", "instances", scopes, found)


def _firewalls(call: Call) -> Answer:
    machine = _machine(call)
    if (interface := call.query["networkInterface"]) != NETWORK_INTERFACE:
        raise Refusal.invalid(f"Invalid value for field 'networkInterface': '{interface}'. No such network interface.")
    return write.firewalls(machine, call.world)


def _guest_attributes(call: Call) -> Answer:
    machine = _machine(call)
    if not machine.guest_attributes_enabled:
        raise Refusal(412, "conditionNotMet", "Guest attributes endpoint access is disabled.")
    path, key = call.query.get("queryPath", ""), call.query.get("variableKey", "")
    if bool(path) == bool(key):
        raise Refusal.invalid("Exactly one of 'queryPath' and 'variableKey' must be specified.")
    return write.guest_attributes(machine, path, key)


def _serial(call: Call) -> Answer:
    machine = _machine(call)
    port = int(call.query.get("port", "1"))
    if port not in SERIAL_PORTS:
        raise Refusal.invalid(f"Invalid value for field 'port': '{port}'. Must be between 1 and 4.")
    if not machine.boot_id:
        raise Refusal(400, "resourceNotReady", f"The resource '{machine.path}' is not ready")
    return write.serial(machine, int(call.query.get("start", "0")))


def _permissions(call: Call) -> Answer:
    call.world.machine(call.path["zone"], call.path["resource"])
    withheld = call.world.faults.withheld()
    known = {*PERMISSIONS.values(), "iam.serviceAccounts.actAs"}
    granted = [name for name in call.body.get("permissions", []) if name in known and name not in withheld]
    return {"permissions": granted} if granted else {}


# -- operations --------------------------------------------------------------------------------------------------------


def _operations(box: Box) -> list[Route]:
    async def wait(call: Call) -> Answer:
        found = _operation(call)
        await box.until(
            lambda: found.status(box.cloud.project(call.world.project).now) == "DONE",
            LONGEST_WAIT_SECONDS,
            given_up=call.request.is_disconnected,
        )
        return render.operation(found, call.world.now)

    return [
        made
        for kind in ("global", "region", "zone")
        for made in (
            route(box, f"{kind}Operations.get", lambda call: render.operation(_operation(call), call.world.now)),
            route(box, f"{kind}Operations.list", _all_operations),
            route(box, f"{kind}Operations.wait", wait),
        )
    ]


def _scope(call: Call) -> str:
    if "zone" in call.path:
        return f"zones/{call.world.zone(call.path['zone'])}"
    return f"regions/{call.world.region(call.path['region'])}" if "region" in call.path else "global"


def _operation(call: Call) -> Operation:
    return call.world.operation_in(f"{call.world.path}/{_scope(call)}", call.path["operation"])


def _all_operations(call: Call) -> Answer:
    scope = _scope(call)
    newest_first = [
        render.operation(found, call.world.now)
        for found in reversed(call.world.operations.values())
        if found.scope == f"{call.world.path}/{scope}"
    ]
    return listed(call, "compute#operationList", f"{scope}/operations", newest_first)
