"""What can go wrong at Compute Engine, made to go wrong on demand, in Google's own words.

The bodies are recorded ones (stock-out: GoogleCloudPlatform/ai-on-gke#849 and scylladb/scylla-cluster-tests#12477;
quota: fastai/course-v3#165; rate limit: hashicorp/terraform-provider-google#8360).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from comfyweb.demo.model import Machine, OperationError, Refusal

PERMISSIONS = {
    "get": "compute.instances.get",
    "list": "compute.instances.list",
    "aggregatedList": "compute.instances.list",
    "start": "compute.instances.start",
    "stop": "compute.instances.stop",
    "reset": "compute.instances.reset",
    "setMetadata": "compute.instances.setMetadata",
    "setScheduling": "compute.instances.setScheduling",
    "getGuestAttributes": "compute.instances.getGuestAttributes",
    "getSerialPortOutput": "compute.instances.getSerialPortOutput",
    "operations.get": "compute.zoneOperations.get",
    "operations.list": "compute.zoneOperations.list",
    "operations.wait": "compute.zoneOperations.get",
    "zones.get": "compute.zones.get",
    "zones.list": "compute.zones.list",
    "projects.get": "compute.projects.get",
}
"""The permission that each call asks for. `testIamPermissions` needs none."""

VERBS = frozenset({*PERMISSIONS, "testIamPermissions"})


def no_capacity(machine: Machine, project: str, zones_available: str) -> OperationError:
    """Fail because the zone has no such machine left."""
    zone = machine.zone
    help_link = {
        "description": "Troubleshooting documentation",
        "url": "https://cloud.google.com/compute/docs/resource-error",
    }
    words = f"A {machine.machine_type} VM instance with 1 {machine.accelerator} accelerator(s) is currently unavailable"
    return OperationError(
        code="ZONE_RESOURCE_POOL_EXHAUSTED",
        message=f"The zone 'projects/{project}/zones/{zone}' does not have enough resources available to fulfill the "
        "request.  Try a different zone, or try again later.",
        http_status=503,
        http_message="SERVICE UNAVAILABLE",
        details=(
            {"help": {"links": [help_link]}},
            {"localizedMessage": {"locale": "en-US", "message": f"{words} in the {zone} zone."}},
            {
                "errorInfo": {
                    "reason": "resource_availability",
                    "domain": "compute.googleapis.com",
                    "metadatas": {
                        "vmType": machine.machine_type,
                        "zone": zone,
                        "attachment": f"{machine.accelerator}:1",
                        "zonesAvailable": zones_available,
                    },
                }
            },
        ),
    )


def no_capacity_with_details(machine: Machine, project: str, _zones_available: str) -> OperationError:
    """Fail in the other code that Google uses for the same."""
    return OperationError(
        code="ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
        message=f"The zone 'projects/{project}/zones/{machine.zone}' does not have enough resources available to "
        "fulfill the request.  '(resource type:compute)'.",
        http_status=503,
        http_message="SERVICE UNAVAILABLE",
    )


def over_quota(_machine: Machine, _project: str, _zones_available: str) -> OperationError:
    """Fail because the project may have no GPU at all."""
    quota = {
        "metricName": "compute.googleapis.com/gpus_all_regions",
        "limitName": "GPUS-ALL-REGIONS-per-project",
        "limit": 0.0,
        "dimensions": {"region": "global"},
    }
    return OperationError(
        code="QUOTA_EXCEEDED",
        message="Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally.",
        http_status=403,
        http_message="FORBIDDEN",
        details=({"quotaInfo": quota},),
    )


def over_regional_quota(machine: Machine, _project: str, _zones_available: str) -> OperationError:
    """Fail because the region's share of GPUs is used up."""
    region = machine.zone.rpartition("-")[0]
    return OperationError(
        code="QUOTA_EXCEEDED",
        message=f"Quota 'NVIDIA_T4_GPUS' exceeded.  Limit: 1.0 in region {region}.",
        http_status=403,
        http_message="FORBIDDEN",
    )


def not_ready(path: str) -> OperationError:
    """Fail because the machine at `path` is in no state for this."""
    return OperationError(
        code="RESOURCE_NOT_READY",
        message=f"The resource '{path}' is not ready",
        http_status=400,
        http_message="BAD REQUEST",
    )


def canceled(user: str) -> OperationError:
    """Fail because `user` did something else meanwhile."""
    return OperationError(
        code="OPERATION_CANCELED_BY_USER",
        message=f"Operation was canceled by user '{user}'.",
        http_status=409,
        http_message="CONFLICT",
    )


def _denied(verb: str, path: str) -> Refusal:
    return Refusal(403, "forbidden", f"Required '{PERMISSIONS.get(verb, verb)}' permission for '{path}'")


_RATE = (
    "Quota exceeded for quota group 'ReadGroup' and limit 'Read requests per user per 100 seconds' of service "
    "'compute.googleapis.com' for consumer 'project_number:464646464646'."
)

OPERATION_FAULTS: dict[str, Callable[[Machine, str, str], OperationError]] = {
    "stockout": no_capacity,
    "stockout-details": no_capacity_with_details,
    "quota": over_quota,
    "quota-region": over_regional_quota,
}
"""Those that an accepted start meets later."""

REFUSALS: dict[str, Callable[[str, str], Refusal]] = {
    "permission": _denied,
    "unavailable": lambda _verb, _path: Refusal(503, "backendError", "The service is currently unavailable."),
    "internal": lambda _verb, _path: Refusal(
        500, "backendError", "Internal error. Please try again or contact support."
    ),
    "rate-limit": lambda _verb, _path: Refusal(403, "rateLimitExceeded", _RATE, domain="usageLimits"),
    "too-many-requests": lambda _verb, _path: Refusal(429, "rateLimitExceeded", _RATE, domain="usageLimits"),
    "unauthorized": lambda _verb, _path: Refusal(
        401, "authError", "Request had invalid authentication credentials. Expected OAuth 2 access token."
    ),
}
"""Those that refuse the call at once, in Google's error frame."""

BAD_GATEWAY = "bad-gateway"
"""An answer from something before the API: HTTP 502 and HTML."""

LOST_ANSWER = "lost-answer"
"""The call does its work, but the caller gets HTTP 504 and HTML: what `requestId` is for."""

KINDS = frozenset({*OPERATION_FAULTS, *REFUSALS, BAD_GATEWAY, LOST_ANSWER})


@dataclass(slots=True, kw_only=True)
class Fault:
    """A fault that waits for calls of `verb` (`*`: any), `times` more times or for ever (None), until `until`."""

    kind: str
    verb: str = "*"
    times: int | None = 1
    until: datetime | None = None
    zones_available: str = ""


class Faults:
    """The faults that are pending, oldest first."""

    def __init__(self) -> None:
        self._pending: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Let `fault` happen from now on. Operation faults happen at starts only, whatever their verb says."""
        if fault.kind in OPERATION_FAULTS:
            fault.verb = "start"
        self._pending.append(fault)

    def clear(self) -> None:
        """Forget all of them."""
        self._pending.clear()

    def expire(self, now: datetime) -> None:
        """Forget those whose time is over."""
        self._pending = [fault for fault in self._pending if fault.until is None or now < fault.until]

    def pending(self) -> Sequence[Fault]:
        """Those that have not happened often enough yet."""
        return tuple(self._pending)

    def take(self, verb: str, *, operation: bool) -> Fault | None:
        """Let the oldest fault for a call of `verb` happen; `operation`: one of those that come later."""
        for fault in self._pending:
            if (fault.kind in OPERATION_FAULTS) == operation and fault.verb in ("*", verb):
                if fault.times is not None:
                    fault.times -= 1
                    if not fault.times:
                        self._pending.remove(fault)
                return fault
        return None

    def withheld(self) -> frozenset[str]:
        """List the permissions that the pending faults take away."""
        denied = [fault.verb for fault in self._pending if fault.kind == "permission"]
        return frozenset(name for verb, name in PERMISSIONS.items() if verb in denied or "*" in denied)
