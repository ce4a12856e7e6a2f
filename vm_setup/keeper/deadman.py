"""`comfyweb.pyz deadman`: one look every minute, from a timer of systemd's, at whether the keeper still keeps.

It shares neither process nor memory with the keeper, and of its code only what looks. It reads the keeper's file, asks
its status by HTTP (a keeper that can't write is alive), asks ComfyUI itself, and powers off when nobody else will.
"""

import logging
import sys
from dataclasses import replace

from vm_setup.base import files
from vm_setup.base.asking import AskError, Request, ask
from vm_setup.base.comfyui import Probe, Reached
from vm_setup.base.places import STATE
from vm_setup.base.processes import run
from vm_setup.host import deadman, power
from vm_setup.host.idle import limit_seconds
from vm_setup.host.messages import rfc3339
from vm_setup.host.reading import json_value, mapping
from vm_setup.keeper import state
from vm_setup.keeper.world import World

_LOG = logging.getLogger(__name__)
FILE = "deadman.json"
_FRESH_SECONDS = 120.0
_COMMAND_SECONDS = 20.0


def look(world: World) -> bool:
    """Look once, power off if it must be; say whether it must."""
    now = world.now()
    file = world.paths.runtime / FILE
    watch = deadman.Watch.from_json(files.read_object(file), now=now.boot)
    saved = files.read_object(world.paths.runtime / STATE)
    limit, _ = limit_seconds(state.read_last_attributes(world.paths).get("comfyweb-idle-minutes"))
    keeper = deadman.Keeper.from_json(saved, now=now.boot, default_limit=limit)
    seen = Probe(world.comfyui, now=lambda: now.boot).look()
    if seen.jobs:
        watch = replace(watch, busy=now.boot)
    off = False
    if deadman.is_stale(keeper, watch=watch, now=now.boot) and not _answers(world):
        holds: dict[str, object] = {**state.read_holds(world.paths)}
        off = deadman.should_power_off(
            keeper,
            watch,
            jobs=0 if seen.reached is Reached.REFUSED else seen.jobs,
            answering=seen.reached is not Reached.REFUSED,
            held_until=deadman.latest_hold(holds, now=now.boot),
            now=now.boot,
        )
        _LOG.warning("The keeper is silent%s.", ": powering off" if off else ", but the machine may be in use")
    how = None
    if off:
        since = now.boot if watch.powered_off is None else watch.powered_off
        how = power.due(since=since, last=watch.powered_off, now=now.boot)
        watch = replace(watch, powered_off=since)
    state.write_object(file, watch.to_json())
    for argv in power.COMMANDS[how] if how else ():
        run(argv, seconds=_COMMAND_SECONDS)
    return off


def _answers(world: World) -> bool:
    """Whether the keeper answers and its word is of these minutes: it lives, though its file is old."""
    try:
        answer = ask(f"http://127.0.0.1:{world.port}", Request(path="/_host/status", seconds=5))
    except AskError:
        return False
    said = (mapping(json_value(answer.body, limit=1_000_000)) or {}).get("at")
    now = world.now().wall
    return isinstance(said, str) and rfc3339(now - _FRESH_SECONDS) <= said <= rfc3339(now + _FRESH_SECONDS)


def main(version: str) -> int:
    """Look once. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    look(World(version=version))
    return 0
