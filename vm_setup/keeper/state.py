"""The files in /run/comfyweb: what other programs say, and the keeper's own memory, which ends with the boot."""

import json
import logging
import statistics
from pathlib import Path

from vm_setup.base import files, tls
from vm_setup.base.paths import Paths
from vm_setup.base.places import DURATIONS, HOLDS, LAST_GOOD, STEPS
from vm_setup.host.boot import COMFYUI, Boot, one_line
from vm_setup.host.messages import Certificate
from vm_setup.host.reading import items, mapping, number

_LOG = logging.getLogger(__name__)
_MOST_HOLDS = 32
_NAME_LIMIT = 64


def read_boot(paths: Paths, *, now: float) -> Boot:
    """Return what the set-up program says of the boot."""
    return Boot.from_json(files.read_object(paths.runtime / STEPS), now=now)


def read_holds(paths: Paths) -> dict[str, float]:
    """Return who needs the machine on until when (boot clock): the files `holds/NAME.json`, {"until": seconds}."""
    holds: dict[str, float] = {}
    try:
        found = sorted((paths.runtime / HOLDS).glob("*.json"))[:_MOST_HOLDS]
    except OSError:
        return holds
    for path in found:
        name, until = one_line(path.stem)[:_NAME_LIMIT], number(files.read_object(path).get("until"))
        if name and until is not None:
            holds[name] = until
    return holds


def read_expected_start(paths: Paths) -> float | None:
    """Return how many seconds ComfyUI usually takes to start: the median of earlier boots."""
    earlier = items(files.read_object(paths.state / DURATIONS).get(COMFYUI)) or []
    seconds = [value for value in map(number, earlier) if value is not None and value >= 0]
    return round(statistics.median(seconds), 1) if seconds else None


def read_last_attributes(paths: Paths) -> dict[str, object]:
    """Return the metadata that the set-up goes by: of an earlier boot, while the metadata server is silent."""
    return mapping(files.read_object(paths.state / LAST_GOOD).get("attributes")) or {}


def read_certificate(paths: Paths, *, wall: float) -> Certificate:
    """Return what ComfyUI is served with."""
    now = tls.current(paths, wall=wall)
    return Certificate(mode=now.mode, trusted=now.trusted, name=now.name, until=now.until)


def write_object(path: Path, value: object) -> bool:
    """Write a file of this boot as a whole; say whether that worked."""
    try:
        files.write(path, json.dumps(value), mode=0o600, durable=False)
    except OSError as error:
        _LOG.warning("%s was not written (%s).", path, error.strerror)
        return False
    return True
