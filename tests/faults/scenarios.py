"""All faults that Compute Engine can send, and what must come of each. One line of docs/faults.md is one scenario."""

from typing import Any

from comfyweb.machine.model import Phase, StopMode, Wanted
from tests.faults.stage import Act, Moment, Scenario, Stage, Wish

ELSEWHERE = "us-central1-b,us-central1-f"
# A call that hangs is given up after this long, in real time; 15 s otherwise.
HANGS = 1.0


def does(action: str, **more: Any) -> Act:
    """Have somebody do this to the machine outside comfyweb."""

    async def act(stage: Stage) -> None:
        stage.box.control("machine", {"action": action, **more})

    return act


def asks(wanted: Wanted) -> Act:
    """Press the other button."""

    async def act(stage: Stage) -> None:
        await stage.driver.ask(wanted, StopMode.NOW)

    return act


async def heals(stage: Stage) -> None:
    """Let nothing go wrong any more."""
    stage.box.control("fault", method="DELETE")


async def is_deleted(stage: Stage) -> None:
    """Have somebody delete the machine, and be done with it."""
    stage.box.control("machine", {"action": "delete"})
    stage.box.advance(10)


async def is_spot(stage: Stage) -> None:
    """Make it a Spot machine."""
    stage.box.machine.scheduling |= {"provisioningModel": "SPOT", "preemptible": True, "automaticRestart": False}


async def is_taken_back(stage: Stage) -> None:
    """Let Google take it back."""
    stage.box.control("preempt")


async def shuts(stage: Stage) -> None:
    """Let connections be refused."""
    assert stage.relay is not None
    await stage.relay.shut()


async def opens(stage: Stage) -> None:
    """Let them be taken again."""
    assert stage.relay is not None
    await stage.relay.open()


def at_start(name: str, *faults: dict[str, Any], **more: Any) -> Scenario:
    """Return a scenario in which Start is pressed and the person gets what they asked for, unless `more` says else."""
    usual: dict[str, Any] = {"says": (), "wish": Wish.MET, "phase": Phase.READY}
    return Scenario(name=name, moment=Moment.START, faults=faults, **(usual | more))


def refused(name: str, *faults: dict[str, Any], says: str, **more: Any) -> Scenario:
    """Return a scenario in which Start is pressed and refused, and the machine stays off."""
    return at_start(name, *faults, **({"says": (says,), "wish": Wish.REFUSED, "phase": Phase.OFF} | more))


def in_use(name: str, *faults: dict[str, Any], **more: Any) -> Scenario:
    """Return a scenario in which nobody presses anything."""
    usual: dict[str, Any] = {"says": (), "wish": Wish.NONE, "phase": Phase.READY, "seconds": 90}
    return Scenario(name=name, moment=Moment.USE, faults=faults, **(usual | more))


def at_stop(name: str, *faults: dict[str, Any], **more: Any) -> Scenario:
    """Return a scenario in which Stop now is pressed and done."""
    usual: dict[str, Any] = {"says": (), "wish": Wish.MET, "phase": Phase.OFF}
    return Scenario(name=name, moment=Moment.STOP, faults=faults, **(usual | more))


def fault(kind: str, verb: str = "*", **more: Any) -> dict[str, Any]:
    """Return what the control endpoint is told."""
    return {"kind": kind, "verb": verb, **more}


def always(kind: str, verb: str = "*") -> dict[str, Any]:
    """Return a fault that lasts."""
    return fault(kind, verb, times=None)


USUAL = [
    at_start("Nothing goes wrong, the first time of all", prepared=False),
    at_start("Nothing goes wrong"),
    at_stop("Nothing goes wrong"),
]
STOCK_OUTS = {
    "stockout": "ZONE_RESOURCE_POOL_EXHAUSTED",
    "stockout-details": "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
    "stockout-region": "REGION_RESOURCE_POOL_EXHAUSTED",
    "stockout-pool": "RESOURCE_POOL_EXHAUSTED",
    "stockout-gpu": "GPU_STOCKOUT",
}
CAPACITY = [
    *(
        refused(
            f"No capacity, `{code}`, {'after 90 s' if after else 'at once'}{', `zonesAvailable`' if zones else ''}",
            {"kind": kind, "after_seconds": after, "zonesAvailable": zones},
            says="no-capacity",
            slow=kind != "stockout" and after > 0,
        )
        for kind, code in STOCK_OUTS.items()
        for after in (0, 90)
        for zones in ("", ELSEWHERE)
    ),
    refused("Quota of all regions (`GPUS_ALL_REGIONS`)", fault("quota", after_seconds=12), says="quota-global"),
    refused("Quota of the region", fault("quota-region", after_seconds=12), says="quota"),
]
PERMISSIONS = [
    at_start(
        "Permission missing: `compute.instances.get`, granted after a minute",
        always("permission", "get"),
        lasting=True,
        acts=((60, heals),),
        says=("permission",),
    ),
    refused(
        "Permission missing: `compute.instances.start`", always("permission", "start"), lasting=True, says="permission"
    ),
    refused(
        "Permission missing: `compute.instances.setMetadata`",
        always("permission", "setMetadata"),
        prepared=False,
        lasting=True,
        says="permission",
    ),
    refused(
        "Permission missing: `compute.instances.setScheduling`",
        always("permission", "setScheduling"),
        prepared=False,
        lasting=True,
        says="permission",
    ),
    refused(
        "Permission missing: `compute.zoneOperations.get`, before the first start of all",
        always("permission", "operations.get"),
        prepared=False,
        says="permission",
    ),
    at_start(
        "Permission missing: `compute.zoneOperations.get`",
        always("permission", "operations.get"),
        says=("permission",),
    ),
    refused(
        "Permission missing: `compute.zoneOperations.get`, and no capacity after 90 s",
        always("permission", "operations.get"),
        fault("stockout", after_seconds=90),
        says="permission",
    ),
    at_start(
        "Permission missing: `compute.instances.getGuestAttributes`",
        always("permission", "getGuestAttributes"),
        lasting=True,
    ),
    refused("Permission missing: `iam.serviceAccounts.actAs`", fault("act-as"), says="act-as"),
    in_use(
        "Permission withdrawn: `compute.instances.get`, granted after a minute",
        always("permission", "get"),
        acts=((60, heals),),
        says=("permission",),
    ),
    at_stop(
        "Permission missing: `compute.instances.stop`",
        always("permission", "stop"),
        lasting=True,
        says=("permission",),
        wish=Wish.REFUSED,
        phase=Phase.READY,
    ),
    at_stop(
        "Permission missing: `compute.zoneOperations.get`", always("permission", "operations.get"), says=("permission",)
    ),
    refused("Compute Engine API not enabled", always("api-disabled", "start"), says="api-disabled"),
    refused("Billing is off", always("billing", "start"), says="billing"),
]
BUSY = [
    at_start("Not ready (HTTP 400), twice", fault("not-ready", "start", times=2), says=("not-ready",)),
    at_start("Not ready (operation), twice", fault("not-ready-later", times=2), says=("not-ready",)),
    refused("Not ready, for ever", always("not-ready", "start"), says="not-ready", seconds=800, slow=True),
    at_stop("Not ready (HTTP 400), twice", fault("not-ready", "stop", times=2), says=("not-ready",)),
    refused("Disk in use (HTTP 400)", always("in-use", "start"), says="in-use"),
    refused("Disk in use (operation)", fault("in-use-later"), says="in-use"),
    at_start("Rate limit (HTTP 403), twice", fault("rate-limit", "start", times=2), says=("rate-limit",)),
    at_start("Rate limit (HTTP 429), twice", fault("too-many-requests", "start", times=2), says=("rate-limit",)),
    refused("Rate limit, for ever", always("rate-limit", "start"), says="rate-limit", seconds=800, slow=True),
    at_start("Rate limit at every call for a minute", fault("rate-limit", seconds=60), says=("rate-limit",)),
    in_use("Rate limit at every call for a minute", fault("too-many-requests", seconds=60), says=("rate-limit",)),
    at_stop("Rate limit (HTTP 429), three times", fault("too-many-requests", "stop", times=3), says=("rate-limit",)),
]
OUTAGES = [
    at_start("HTTP 503 at the start, three times", fault("unavailable", "start", times=3), says=("unavailable",)),
    at_start("HTTP 500 at the start, once", fault("internal", "start"), says=("unavailable",)),
    at_start("HTTP 502 with HTML, twice", fault("bad-gateway", "start", times=2), says=("unavailable",)),
    at_start(
        "HTTP 503 at the start for three minutes",
        fault("unavailable", "start", seconds=180),
        says=("unavailable",),
        seconds=400,
    ),
    at_start(
        "HTTP 503 while the start is followed, ten times",
        fault("unavailable", "operations.get", times=10),
        says=("unavailable",),
    ),
    at_start("HTTP 503 at every call for 40 s", fault("unavailable", seconds=40), says=("unavailable",)),
    in_use("HTTP 503 at every call for a minute", fault("unavailable", seconds=60), says=("unavailable",)),
    at_stop("HTTP 503 at the stop, three times", fault("unavailable", "stop", times=3), says=("unavailable",)),
    at_stop("HTTP 503 at every call for 40 s", fault("unavailable", seconds=40), says=("unavailable",)),
    at_start("The start is done, its answer is lost (HTTP 504)", fault("lost-answer", "start"), says=("unavailable",)),
    at_start(
        "The start is done, its answer is lost (HTTP 504), and Stop is pressed a second later",
        fault("lost-answer", "start"),
        acts=((1, asks(Wanted.OFF)),),
        says=("unavailable",),
        phase=Phase.OFF,
    ),
    at_stop("The stop is done, its answer is lost (HTTP 504)", fault("lost-answer", "stop"), says=("unavailable",)),
]
NETWORK = [
    at_start("No answer to the start", fault("hang", "start"), says=("network-timeout",), timeout_seconds=HANGS),
    at_start(
        "No answer to a look, twice", fault("hang", "get", times=2), says=("network-timeout",), timeout_seconds=HANGS
    ),
    in_use(
        "No answer to a look, twice", fault("hang", "get", times=2), says=("network-timeout",), timeout_seconds=HANGS
    ),
    at_stop("No answer to the stop", fault("hang", "stop"), says=("network-timeout",), timeout_seconds=HANGS),
    at_start("Half an answer to the start", fault("half-answer", "start"), says=("bad-answer",)),
    at_start(
        "Half an answer while the start is followed, twice",
        fault("half-answer", "operations.get", times=2),
        says=("bad-answer",),
    ),
    in_use("Half an answer to a look, twice", fault("half-answer", "get", times=2), says=("bad-answer",)),
    at_stop("Half an answer to the stop", fault("half-answer", "stop"), says=("bad-answer",)),
    at_start("The connection is reset at the start, twice", fault("reset", "start", times=2), says=("network",)),
    in_use("Connections are reset for half a minute", fault("reset", seconds=30), says=("network",)),
    at_stop("The connection is reset at the stop, twice", fault("reset", "stop", times=2), says=("network",)),
    at_start("Connections are refused for 20 s", before=shuts, acts=((20, opens),), says=("network",), relayed=True),
    in_use("Connections are refused for 20 s", before=shuts, acts=((20, opens),), says=("network",), relayed=True),
    at_stop("Connections are refused for 20 s", before=shuts, acts=((20, opens),), says=("network",), relayed=True),
]
CREDENTIALS = [
    at_start(
        "Credentials expired (HTTP 401), replaced after a minute",
        always("unauthorized"),
        acts=((60, heals),),
        says=("credentials-refused",),
    ),
    refused("Credentials refused at the start alone", fault("unauthorized", "start"), says="credentials-refused"),
    in_use(
        "Credentials expired (HTTP 401), replaced after a minute",
        always("unauthorized"),
        acts=((60, heals),),
        says=("credentials-refused",),
    ),
    at_stop(
        "Credentials expired (HTTP 401), replaced after a minute",
        always("unauthorized"),
        acts=((60, heals),),
        says=("credentials-refused",),
    ),
]
UNDERNEATH = [
    in_use("Spot: Google takes the machine back", before=is_spot, acts=((10, is_taken_back),), phase=Phase.OFF),
    in_use("Somebody stops the machine in the console", acts=((10, does("stop")),), phase=Phase.OFF),
    in_use("Somebody deletes the machine", acts=((10, does("delete")),), says=("not-found",), phase=Phase.MISSING),
    at_start(
        "The machine was deleted",
        before=is_deleted,
        says=("not-found",),
        wish=Wish.REFUSED,
        phase=Phase.MISSING,
    ),
    at_start(
        "Somebody deletes the machine while it starts",
        acts=((3, does("delete")),),
        says=("not-found",),
        wish=Wish.REFUSED,
        phase=Phase.MISSING,
    ),
    at_start(
        "The machine was renamed",
        before=does("rename", to="another"),
        says=("not-found",),
        wish=Wish.REFUSED,
        phase=Phase.MISSING,
    ),
    Scenario(
        name="Somebody starts the machine in the console",
        moment=Moment.OFF,
        acts=((10, does("start")),),
        says=(),
        wish=Wish.NONE,
        phase=Phase.READY,
        seconds=60,
        prepared=False,
    ),
    at_start("Somebody starts the machine in the console at the same moment", before=does("start")),
    at_start(
        "Somebody stops the machine while it starts",
        acts=((3, does("stop")),),
        says=("called-off",),
        wish=Wish.REFUSED,
        phase=Phase.OFF,
    ),
    at_stop(
        "Somebody deletes the machine while it stops",
        acts=((2, does("delete")),),
        phase=Phase.MISSING,
        says=("not-found",),
    ),
    at_stop("Somebody starts the machine in the console while it stops", acts=((2, does("start")),)),
    at_start(
        "The machine is suspended",
        before=does("status", status="SUSPENDED"),
        says=("suspended",),
        wish=Wish.REFUSED,
        phase=Phase.FAULT,
    ),
    at_start(
        "Google repairs the machine for a minute",
        before=does("status", status="REPAIRING"),
        acts=((60, does("status", status="TERMINATED")),),
        says=("repairing",),
    ),
]
STOPS = [
    at_stop(
        "A stop takes eleven minutes",
        fault("slow-stop", after_seconds=660),
        says=("stop-stuck",),
        seconds=800,
        slow=True,
    ),
    at_stop(
        "A stop never ends",
        fault("slow-stop"),
        says=("stop-stuck",),
        wish=Wish.OPEN,
        phase=Phase.STOPPING,
        seconds=720,
        slow=True,
    ),
]
GROUPS: dict[str, list[Scenario]] = {
    "For comparison": USUAL,
    "Capacity and quotas": CAPACITY,
    "Permissions and billing": PERMISSIONS,
    "Busy": BUSY,
    "Outages of Google's": OUTAGES,
    "The network": NETWORK,
    "Credentials": CREDENTIALS,
    "Others do something to the machine": UNDERNEATH,
    "Stops": STOPS,
}
SCENARIOS = [scenario for group in GROUPS.values() for scenario in group]
