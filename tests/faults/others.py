"""How others tell Google's errors apart, row by row, and every difference of ours with its reason.

SkyPilot's table is that of 0.14.1 (`FailoverCloudErrorHandlerV2._gcp_handler` in cloud_vm_ray_backend.py): what it does
not try any more after an error. Apache Libcloud's errors are the recorded ones inside its wheel.
"""

from dataclasses import dataclass
from typing import NamedTuple

# The rows of ours that mean what SkyPilot means by blocking so much.
SAME = {
    "everything": frozenset({"quota-global", "permission"}),
    "the region": frozenset({"quota"}),
    "the zone": frozenset({"no-capacity"}),
}


@dataclass(frozen=True, slots=True)
class Row:
    """An error, what SkyPilot then blocks, our row for it, and why that means something else (empty: it does not)."""

    code: str
    message: str
    blocks: str
    ours: str
    why: str = ""
    http_status: int | None = None


GLOBAL = "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 1.0 globally."
REGIONAL = "Quota 'CPUS' exceeded.  Limit: 24.0 in region us-west1."
GONE = "The resource 'projects/p/zones/us-west1-a/instances/m' was not found"
NOT_GOOGLE_S = "SkyPilot's own code, which Google does not send"
NO_TPU = "of Cloud TPU, which comfyweb does not use"

SKYPILOT = (
    Row("QUOTA_EXCEEDED", GLOBAL, "everything", "quota-global"),
    Row("quotaExceeded", GLOBAL, "everything", "quota-global"),
    Row("QUOTA_EXCEEDED", REGIONAL, "the region", "quota"),
    Row("quotaExceeded", REGIONAL, "the region", "quota"),
    Row("ZONE_RESOURCE_POOL_EXHAUSTED", "", "the zone", "no-capacity"),
    Row("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", "", "the zone", "no-capacity"),
    Row("insufficientCapacity", "", "the zone", "no-capacity"),
    Row(
        "UNSUPPORTED_OPERATION",
        "",
        "the zone",
        "unknown",
        "seen when a machine was taken back while it was made; a start of one that is there stops and shows the words",
    ),
    Row("RESOURCE_NOT_READY", "", "the zone", "not-ready", "it is still stopping: wait, and start the same machine"),
    Row(
        "RESOURCE_OPERATION_RATE_EXCEEDED",
        "",
        "the zone",
        "rate-limit",
        "wait longer, and repeat the call in the same zone",
    ),
    Row(
        "RESOURCE_NOT_FOUND", GONE, "the zone", "not-found", "a machine to be started must be there: say that it is not"
    ),
    Row("VPC_NOT_FOUND", "", "everything", "unknown", NOT_GOOGLE_S),
    Row("SUBNET_NOT_FOUND_FOR_VPC", "", "the region", "unknown", NOT_GOOGLE_S),
    Row("3", "Cloud TPU received a bad request.", "the zone", "unknown", NO_TPU),
    Row("8", "There is no more capacity in the zone", "the zone", "unknown", NO_TPU),
    Row("9", "Insufficient reserved capacity.", "the zone", "unknown", NO_TPU),
    Row(
        "type.googleapis.com/google.rpc.QuotaFailure",
        "Limit 32 in region europe-west4",
        "the region",
        "unknown",
        NO_TPU,
    ),
    Row(
        "invalid",
        "Requested disk size cannot be smaller than the image size",
        "everything",
        "unknown",
        "of making a disk: stop, and show the words",
        http_status=400,
    ),
    Row("IAM_PERMISSION_DENIED", "", "everything", "permission"),
    Row("forbidden", "Policy update access denied.", "everything", "permission", http_status=403),
    Row(
        "forbidden",
        "Location us-west1-z is not found or access is unauthorized.",
        "the zone",
        "place-not-found",
        "the zone is a setting of comfyweb's: ask to check it",
        http_status=403,
    ),
    Row("TIMEOUT", "", "the zone", "unknown", NOT_GOOGLE_S),
    Row(
        "VM_MIN_COUNT_NOT_REACHED",
        "",
        "the zone",
        "unknown",
        "of making several machines at once, which comfyweb does not",
    ),
    Row(
        "SOMETHING_NEW",
        "Words.",
        "the zone",
        "unknown",
        "what nobody knows is not tried elsewhere: stop, and show the words",
    ),
)


class Recorded(NamedTuple):
    """Our row for a recorded error, and why Libcloud tells it otherwise (empty: it does not)."""

    ours: str
    why: str = ""


# By the file's name among Libcloud's fixtures.
LIBCLOUD = {
    "global_images_family_notfound.json": Recorded("part-not-found"),
    "operations_operation_zones_europe-west1-a_instances_post.json": Recorded(
        "unknown", "`RESOURCE_ALREADY_EXISTS`: comfyweb makes nothing that could be there already: show the words"
    ),
    "zones_us-central1-b_instances_libcloud-lb-demo-www-002.json": Recorded("not-found"),
    "zones_us_central1_a_operations_operation_setMachineType_notstopped.json": Recorded("not-ready"),
}
