"""The machine's clocks."""

import time

from vm_setup.host.messages import Now


def read_clocks() -> Now:
    """Return this moment: seconds since the boot, suspended time too, on a clock that can't be set; and the date."""
    return Now(boot=time.clock_gettime(time.CLOCK_BOOTTIME), wall=time.time())


def slept() -> float:
    """Return for how many seconds since the boot the machine was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
