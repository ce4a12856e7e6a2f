"""Checks what callers send: names, labels, metadata, scheduling and the like. Refuses the rest in Google's words."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, cast

from comfyweb.demo.catalog import LARGEST_DISK_GB, SMALLEST_DISK_GB
from comfyweb.demo.model import Refusal

STOPPED_ONLY = ("maxRunDuration", "instanceTerminationAction", "provisioningModel", "preemptible")
"""What `setScheduling` changes only while the machine is TERMINATED."""

SHORTEST_RUN = timedelta(seconds=30)
LONGEST_RUN = timedelta(days=120)
LONGEST_VALUE = 256 * 1024
LONGEST_METADATA = 512 * 1024
MOST_LABELS = 64

_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_DIGITS = re.compile(r"[0-9]{1,15}")
_WORDS: dict[str, frozenset[str]] = {
    "onHostMaintenance": frozenset({"MIGRATE", "TERMINATE"}),
    "instanceTerminationAction": frozenset({"DELETE", "STOP"}),
    "provisioningModel": frozenset({"FLEX_START", "RESERVATION_BOUND", "SPOT", "STANDARD"}),
}


def object_in(raw: bytes) -> dict[str, Any]:
    """Read the JSON object in a request's body; {} when there is none. Raises `Refusal` for anything else."""
    if not raw.strip():
        return {}
    try:
        found: object = json.loads(raw)
    except (ValueError, RecursionError):
        raise Refusal(400, "parseError", "Invalid JSON payload received. Parse error.") from None
    if not isinstance(found, dict):
        raise Refusal(
            400, "parseError", 'Invalid JSON payload received. Unknown name "": Root element must be a message.'
        )
    return cast("dict[str, Any]", found)


def fingerprint_of(content: Mapping[str, str]) -> str:
    """Base64 of a hash of metadata, or of labels: differs when, and only when, the content does."""
    digest = hashlib.sha256(json.dumps(sorted(content.items())).encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def name_in(said: object, field: str) -> str:
    """Read the name of something new. Raises `Refusal`."""
    if not isinstance(said, str) or not _NAME.fullmatch(said):
        raise Refusal.invalid(
            f"Invalid value for field '{field}': '{said or ''}'. Must be a match of regex '(?:{_NAME.pattern})'"
        )
    return said


def size_in(said: object, field: str, *, default: int | None = None) -> int:
    """Read the size of a disk in GB: a number, or one in a string. Raises `Refusal`."""
    if said is None and default is not None:
        return default
    text = str(said) if isinstance(said, (int, str)) and not isinstance(said, bool) else ""
    if not _DIGITS.fullmatch(text) or not SMALLEST_DISK_GB <= int(text) <= LARGEST_DISK_GB:
        raise Refusal.invalid(
            f"Invalid value for field '{field}': '{said}'. Disk size must be {SMALLEST_DISK_GB} GB to "
            f"{LARGEST_DISK_GB} GB."
        )
    return int(text)


def labels_in(said: object) -> dict[str, str]:
    """Read the labels that a caller wants. Raises `Refusal`."""
    labels = cast("dict[object, object]", said) if isinstance(said, dict) else {"": said}
    found: dict[str, str] = {}
    for key, value in labels.items():
        if not isinstance(key, str) or not _LABEL_KEY.fullmatch(key):
            raise Refusal.invalid(f"Invalid value for field 'labels': {key!r}. Must match '{_LABEL_KEY.pattern}'")
        if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            raise Refusal.invalid(f"Invalid value for field 'labels': {value!r}. Must match '{_LABEL_VALUE.pattern}'")
        found[key] = value
    if len(found) > MOST_LABELS:
        raise Refusal.invalid(f"Invalid value for field 'labels': there are more than {MOST_LABELS}.")
    return found


def metadata_in(body: Mapping[str, Any]) -> tuple[dict[str, str], str]:
    """Read the metadata and the fingerprint that a caller sends. Raises `Refusal`."""
    _only(body, {"items", "fingerprint", "kind"}, "metadata")
    fingerprint = body.get("fingerprint", "")
    try:
        base64.b64decode(fingerprint, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Refusal(412, "conditionNotMet", "Invalid fingerprint.") from None
    return items_in(body), fingerprint


def items_in(body: Mapping[str, Any]) -> dict[str, str]:
    """Read the metadata that a caller sends, whatever its fingerprint. Raises `Refusal`."""
    items = body.get("items", [])
    if not isinstance(items, list):
        raise Refusal.invalid("Invalid value at 'metadata.items' (type.googleapis.com/compute.v1.Metadata.Items)")
    metadata: dict[str, str] = {}
    for item in cast("list[object]", items):
        key, value = _item(item)
        if key in metadata:
            raise Refusal.invalid(f"Invalid value for field 'metadata.items': Duplicate metadata key: {key}")
        metadata[key] = value
    if sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items()) > LONGEST_METADATA:
        raise Refusal.invalid(f"Metadata is too large: it may hold {LONGEST_METADATA} bytes in all")
    return metadata


def _item(item: object) -> tuple[str, str]:
    if not isinstance(item, dict):
        raise Refusal.invalid("Invalid value at 'metadata.items' (type.googleapis.com/compute.v1.Metadata.Items)")
    found = cast("dict[str, object]", item)
    _only(found, {"key", "value"}, "metadata.items")
    key, value = found.get("key"), found.get("value", "")
    if not isinstance(key, str) or not _KEY.fullmatch(key):
        raise Refusal.invalid(f"Invalid value for field 'metadata.items.key': {key!r}. Must match '{_KEY.pattern}'")
    if not isinstance(value, str):
        raise Refusal.invalid(f"Invalid value at 'metadata.items.value' (TYPE_STRING) of key {key}")
    if len(value.encode()) > LONGEST_VALUE:
        raise Refusal.invalid(
            f"Value for field 'metadata.items.value' of key {key} is too large: {LONGEST_VALUE} bytes"
        )
    return key, value


def scheduling_in(body: Mapping[str, Any], *, has_gpu: bool) -> dict[str, Any]:
    """Read the whole scheduling that a caller wants, with Google's defaults for what is not said. Raises `Refusal`.

    Whether Google merges or replaces is not documented; this replaces, which punishes a caller that sends a part.
    """
    _only(body, {*_WORDS, "automaticRestart", "preemptible", "maxRunDuration"}, "scheduling")
    for name, words in _WORDS.items():
        if name in body and not (isinstance(body[name], str) and body[name] in words):
            raise Refusal.invalid(f"Invalid value at 'scheduling.{name}': {body[name]!r}")
    for name in ("automaticRestart", "preemptible"):
        if not isinstance(body.get(name, False), bool):
            raise Refusal.invalid(f"Invalid value at 'scheduling.{name}' (TYPE_BOOL), {body[name]!r}")
    wanted: dict[str, Any] = {
        "automaticRestart": True,
        "onHostMaintenance": "MIGRATE",
        "preemptible": False,
        "provisioningModel": "STANDARD",
        **body,
    }
    if has_gpu and wanted["onHostMaintenance"] != "TERMINATE":
        raise Refusal.invalid("Instances with guest accelerators do not support live migration.")
    if "maxRunDuration" in wanted:
        wanted["maxRunDuration"] = {"seconds": str(_max_run_seconds(wanted["maxRunDuration"]))}
        if "instanceTerminationAction" not in wanted:
            raise Refusal.invalid(
                "Scheduling must have instance termination action when max run duration is specified."
            )
    return wanted


def _max_run_seconds(duration: object) -> int:
    found = cast("dict[str, object]", duration) if isinstance(duration, dict) else {}
    _only(found, {"seconds", "nanos"}, "scheduling.max_run_duration")
    seconds = found.get("seconds")
    if isinstance(seconds, int) and not isinstance(seconds, bool):
        seconds = str(seconds)
    if not isinstance(seconds, str) or not _DIGITS.fullmatch(seconds):
        raise Refusal.invalid("Invalid value at 'scheduling.max_run_duration.seconds' (TYPE_INT64)")
    if not SHORTEST_RUN.total_seconds() <= int(seconds) <= LONGEST_RUN.total_seconds():
        raise Refusal.invalid(
            f"Invalid value for field 'scheduling.maxRunDuration': '{seconds}s'. It must be 30 seconds to 120 days."
        )
    return int(seconds)


def max_run(scheduling: Mapping[str, Any]) -> timedelta | None:
    """How long a run may last, of a scheduling that was checked."""
    duration = scheduling.get("maxRunDuration")
    return timedelta(seconds=int(duration["seconds"])) if duration else None


def permissions_in(body: Mapping[str, Any]) -> list[str]:
    """Read the permissions that a caller asks about. Raises `Refusal`."""
    _only(body, {"permissions"}, "testIamPermissionsRequest")
    permissions = body.get("permissions", [])
    if not isinstance(permissions, list) or not all(
        isinstance(name, str) for name in cast("list[object]", permissions)
    ):
        raise Refusal.invalid("Invalid value at 'permissions' (TYPE_STRING)")
    return cast("list[str]", permissions)


def _only(body: Mapping[str, object], known: set[str], where: str) -> None:
    for name in body:
        if name not in known:
            raise Refusal.invalid(
                f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field."
            )
