"""What can go wrong at Compute Engine, made to go wrong on demand, in Google's own words.

The bodies are recorded ones (stock-out: GoogleCloudPlatform/ai-on-gke#849, scylladb/scylla-cluster-tests#12477 and
kubernetes/k8s.io#9834; quota: fastai/course-v3#165; rate limit: hashicorp/terraform-provider-google#8360; disk in use:
hashicorp/terraform#23698). Of three stock-outs only the codes are known; they have the first one's words.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from comfyweb.demo.methods import METHODS, permission_of, verb_of
from comfyweb.demo.model import CALLER, SERVICE_ACCOUNT, Machine, OperationError, Refusal, region_of

PERMISSIONS = {verb_of(name): permission_of(name) for name in METHODS if name != "instances.testIamPermissions"}
"""The permission that each call asks for. `testIamPermissions` needs none."""

VERBS = frozenset({*PERMISSIONS, "testIamPermissions"})

Later = Callable[[Machine, str, str], OperationError]
"""Makes the error of an operation on a machine, of its project and of the zones that have what it lacks."""


def _stock_out(code: str, why: str) -> Later:
    """Fail because the zone has no such machine left, in one of the codes that Google has for it."""

    def fail(machine: Machine, project: str, zones_available: str) -> OperationError:
        return OperationError(
            code=code,
            message=f"The zone 'projects/{project}/zones/{machine.zone}' does not have enough resources available to "
            f"fulfill the request.  {why}",
            http_status=503,
            http_message="SERVICE UNAVAILABLE",
            details=_no_capacity(machine, zones_available),
        )

    return fail


def _no_capacity(machine: Machine, zones_available: str) -> Sequence[Mapping[str, Any]]:
    link = {
        "description": "Troubleshooting documentation",
        "url": "https://cloud.google.com/compute/docs/resource-error",
    }
    words = f"A {machine.machine_type} VM instance with 1 {machine.accelerator} accelerator(s) is currently unavailable"
    info = {
        "reason": "resource_availability",
        "domain": "compute.googleapis.com",
        "metadatas": {
            "vmType": machine.machine_type,
            "zone": machine.zone,
            "attachment": f"{machine.accelerator}:1",
            "zonesAvailable": zones_available,
        },
    }
    return (
        {"help": {"links": [link]}},
        {"localizedMessage": {"locale": "en-US", "message": f"{words} in the {machine.zone} zone."}},
        {"errorInfo": info},
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
    region = region_of(machine.zone)
    return OperationError(
        code="QUOTA_EXCEEDED",
        message=f"Quota 'NVIDIA_T4_GPUS' exceeded.  Limit: 1.0 in region {region}.",
        http_status=403,
        http_message="FORBIDDEN",
    )


def _in_use(machine: Machine, project: str, _zones_available: str) -> OperationError:
    """Fail because another machine has the disk."""
    zone = f"projects/{project}/zones/{machine.zone}"
    return OperationError(
        code="RESOURCE_IN_USE_BY_ANOTHER_RESOURCE",
        message=_used(f"{zone}/disks/comfyui", f"{zone}/instances/another"),
        http_status=400,
        http_message="BAD REQUEST",
    )


def _used(disk: str, machine: str) -> str:
    return f"The disk resource '{disk}' is already being used by '{machine}'"


def _no_act_as(_machine: Machine, _project: str, _zones_available: str) -> OperationError:
    """Fail because the caller may not act for the machine's service account."""
    return OperationError(
        code="SERVICE_ACCOUNT_ACCESS_DENIED",
        message="The user does not have access to service account "
        f"'{SERVICE_ACCOUNT}'.  User: '{CALLER}'.  "
        "Ask a project owner to grant you the iam.serviceAccountUser role on the service account",
        http_status=400,
        http_message="BAD REQUEST",
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

_TRY = "Try a different zone, or try again later."

ACT_AS = "act-as"
OPERATION_FAULTS: dict[str, Later] = {
    "stockout": _stock_out("ZONE_RESOURCE_POOL_EXHAUSTED", _TRY),
    "stockout-details": _stock_out("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "'(resource type:compute)'."),
    "stockout-region": _stock_out("REGION_RESOURCE_POOL_EXHAUSTED", _TRY),
    "stockout-pool": _stock_out("RESOURCE_POOL_EXHAUSTED", _TRY),
    "stockout-gpu": _stock_out("GPU_STOCKOUT", _TRY),
    "quota": over_quota,
    "quota-region": over_regional_quota,
    "not-ready-later": lambda machine, project, _zones: not_ready(
        f"projects/{project}/zones/{machine.zone}/instances/{machine.name}"
    ),
    "in-use-later": _in_use,
    ACT_AS: _no_act_as,
}
"""Those that an accepted start meets later."""

SLOW_STOP = "slow-stop"
"""An accepted stop takes `after`; without it, for ever. Other stops join it."""

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
    "not-ready": lambda _verb, path: Refusal(400, "resourceNotReady", f"The resource '{path}' is not ready"),
    "in-use": lambda _verb, path: Refusal(
        400,
        "resourceInUseByAnotherResource",
        _used(f"{path.partition('/instances/')[0]}/disks/comfyui", f"{path}-2"),
    ),
    "api-disabled": lambda _verb, _path: Refusal(
        403,
        "accessNotConfigured",
        "Compute Engine API has not been used in project 464646464646 before or it is disabled.",
        domain="usageLimits",
    ),
    "billing": lambda _verb, _path: Refusal(
        403, "forbidden", "This API method requires billing to be enabled. Please enable billing on the project."
    ),
}
"""Those that refuse the call at once, in Google's error frame."""

BAD_GATEWAY = "bad-gateway"
"""An answer from something before the API: HTTP 502 and HTML."""

LOST_ANSWER = "lost-answer"
"""The call does its work, but the caller gets HTTP 504 and HTML: what `requestId` is for."""

HANG = "hang"
"""Nothing is done, and no answer ever comes."""

RESET = "reset"
"""Nothing is done, and the connection is reset."""

HALF_ANSWER = "half-answer"
"""The call does its work, but the connection ends in the middle of the answer."""

_LATER = frozenset({*OPERATION_FAULTS, SLOW_STOP})
KINDS = frozenset({*_LATER, *REFUSALS, BAD_GATEWAY, LOST_ANSWER, HANG, RESET, HALF_ANSWER})


@dataclass(slots=True, kw_only=True)
class Fault:
    """A fault that waits for calls of `verb` (`*`: any), `times` more times or for ever (None), until `until`.

    `after` is when an accepted start shows its failure, or how long a slow stop takes, counted from its beginning.
    """

    kind: str
    verb: str = "*"
    times: int | None = 1
    until: datetime | None = None
    after: timedelta | None = None
    zones_available: str = ""


class Faults:
    """The faults that are pending, oldest first."""

    def __init__(self) -> None:
        self._pending: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Let `fault` happen from now on. What comes later happens at starts or at stops, whatever its verb says."""
        if fault.kind in _LATER:
            fault.verb = "stop" if fault.kind == SLOW_STOP else "start"
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
            if (fault.kind in _LATER) == operation and fault.verb in ("*", verb):
                if fault.times is not None:
                    fault.times -= 1
                    if not fault.times:
                        self._pending.remove(fault)
                return fault
        return None

    @property
    def no_act_as(self) -> bool:
        """Whether the caller may not act for the machine's service account."""
        return any(fault.kind == ACT_AS for fault in self._pending)

    def withheld(self) -> frozenset[str]:
        """List the permissions that the pending faults take away."""
        denied = [fault.verb for fault in self._pending if fault.kind == "permission"]
        return frozenset(name for verb, name in PERMISSIONS.items() if verb in denied or "*" in denied)
