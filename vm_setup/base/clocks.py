"""The machine's clocks."""

import logging
import time
from pathlib import Path

from vm_setup.host.messages import Now

_LOG = logging.getLogger(__name__)


def read_clocks() -> Now:
    """Return this moment: seconds since the boot, suspended time too, on a clock that can't be set; and the date."""
    return Now(boot=time.clock_gettime(time.CLOCK_BOOTTIME), wall=time.time())


def slept() -> float:
    """Return for how many seconds since the boot the machine was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def boot_id(kernel: Path) -> str:
    """Return the name of this boot, which no other has."""
    try:
        return (kernel / "proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, ValueError):
        _LOG.exception("This boot has no name.")
        return "unknown"
