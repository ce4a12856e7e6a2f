"""Where tests keep what they throw away: in memory, since a disk is waited for by whoever syncs.

The host syncs each file that must outlive a power cut, the ledger each transaction. A kill loses nothing of what was
written, synced or not; power cuts are tried by tests/machines, on disks of their own.
"""

import os
from pathlib import Path

_MEMORY = Path("/dev/shm")  # noqa: S108 - what is put there is in folders that only their owner enters
# Several runs' worth of what a run leaves.
_ENOUGH = 2 << 30


def memory() -> str | None:
    """Return a folder in memory; None where there is none, it is small, or programs can't be run from it."""
    if not os.access(_MEMORY, os.W_OK | os.X_OK):
        return None
    found = os.statvfs(_MEMORY)
    fits = not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize > _ENOUGH
    return str(_MEMORY) if fits else None
