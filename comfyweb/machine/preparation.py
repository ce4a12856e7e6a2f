"""What a machine must carry before it is started: pure comparisons of wanted and seen.

An empty wanted value means that the key must be absent (so the legacy `auth_user` and `auth_pass` go away). Keys that
nobody here asks for are never touched.
"""

from collections.abc import Mapping
from datetime import timedelta

from comfyweb.machine.model import Scheduling

# The first lines of every start-up script of ours that goes inline hold this, so that we know it again.
SCRIPT_MARK = "# comfyweb host bundle"
_SCRIPT = "startup-script"
_SCRIPT_URL = "startup-script-url"

# Compute Engine accepts a maxRunDuration of 30 seconds to 120 days (its page "Limit the run time of a VM").
_SHORTEST_RUN = timedelta(seconds=30)
_LONGEST_RUN = timedelta(days=120)


def metadata_changes(seen: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Return the part of `wanted` that `seen` does not hold yet; an empty value says: delete this key."""
    return {key: value for key, value in wanted.items() if (seen.get(key) != value if value else key in seen)}


def wanted_metadata(wanted: Mapping[str, str], seen: Mapping[str, str]) -> dict[str, str]:
    """Return `wanted` with the start-up script in one of its two keys, never both.

    Where nothing of ours is to go, or the machine has a script that is not ours, neither key is wanted: what is
    there stays.
    """
    others = {key: value for key, value in wanted.items() if key not in {_SCRIPT, _SCRIPT_URL}}
    script = {key: wanted.get(key, "") for key in (_SCRIPT, _SCRIPT_URL)}
    return others if not any(script.values()) or foreign_script(wanted, seen) else others | script


def foreign_script(wanted: Mapping[str, str], seen: Mapping[str, str]) -> bool:
    """Say whether somebody else's start-up script is on the machine, where ours would go or beside it.

    A URL that differs from a wanted URL is not foreign: a person who names a URL wants that one.
    """
    if not (wanted.get(_SCRIPT) or wanted.get(_SCRIPT_URL)):
        return False
    inline = seen.get(_SCRIPT, "").strip()
    if inline and inline != wanted.get(_SCRIPT, "").strip() and not _marked(inline):
        return True
    return bool(seen.get(_SCRIPT_URL)) and not wanted.get(_SCRIPT_URL)


def run_seconds(max_run: timedelta) -> int:
    """Return the `maxRunDuration` for `max_run`, in whole seconds and within what Compute Engine accepts."""
    return int(min(max(max_run, _SHORTEST_RUN), _LONGEST_RUN).total_seconds())


def needs_scheduling(seen: Scheduling, max_run: timedelta) -> bool:
    """Say whether the guard that Compute Engine itself holds, a STOP after `max_run`, is missing or another one."""
    return seen.max_run_seconds != run_seconds(max_run) or seen.termination_action != "STOP"


def _marked(script: str) -> bool:
    return SCRIPT_MARK in "\n".join(script.splitlines()[:3])
