"""What the keeper says to people: warnings for the page, and the one line that `systemctl status` shows."""

from collections.abc import Iterator, Sequence

from vm_setup.base.comfyui import Look, Reached
from vm_setup.host.boot import DRIVER
from vm_setup.host.hang import SILENT_SECONDS, Hang
from vm_setup.host.idle import LONGEST_SILENCE_SECONDS, Idle
from vm_setup.host.messages import Now, Report, Step, rfc3339
from vm_setup.keeper.seen import Card, Space

NO_CARD = "No graphics card answers (nvidia-smi)."
NO_CHECK = (
    "Signatures can't be checked on this machine, so no command is obeyed: it has neither cryptography nor openssl."
)
DISK_FIRST = "The data disk is worked on: the machine goes off when that is over, or at the drain's deadline."
NO_STATE = "The keeper can't write to /run: a restart of it will count as a use of the machine."
NO_METADATA = "The metadata server does not answer: settings and commands from the page don't arrive."
_LEAST_FREE_SHARE = 0.05
_LEAST_FREE_BYTES, _ENOUGH_FREE_BYTES = 2 << 30, 20 << 30
_RESTART_TOLD_SECONDS = 3600.0
_ENDED_SECONDS = 60.0


def of_comfyui(hang: Hang, clock: Idle, look: Look | None, *, now: Now) -> Iterator[str]:
    """Say when ComfyUI was restarted, and until when a silent one counts as busy."""
    if hang.restarted is not None and now.boot - hang.restarted < _RESTART_TOLD_SECONDS:
        yield f"ComfyUI ran but didn't answer, so it was restarted at {now.tell(hang.restarted)}."
    if look is None or look.reached is not Reached.SILENT:
        return
    if clock.busy:
        until = now.tell(clock.seen + LONGEST_SILENCE_SECONDS)
        yield f"ComfyUI doesn't answer. It had prompts, which count as running until it does, at most until {until}."
    elif hang.silent_since is not None and now.boot - hang.silent_since >= SILENT_SECONDS:
        yield f"ComfyUI runs but hasn't answered since {now.tell(hang.silent_since)}."


def of_end(gone_since: float | None, *, now: Now) -> Iterator[str]:
    """Say since when ComfyUI, which had answered before, has run no more: a start of it takes its time."""
    if gone_since is not None and now.boot - gone_since >= _ENDED_SECONDS:
        yield (
            f"ComfyUI ended at {now.tell(gone_since)} and is started again. If it stays away, its log says why: "
            "journalctl -u comfyui"
        )


def of_machine(card: Card | None, space: Space | None, steps: Sequence[Step]) -> Iterator[str]:
    """Say what is wrong with the graphics card, unless the boot's step has told it better, or with the disk."""
    told = any(step.name == DRIVER and step.state == "failed" for step in steps)
    if not told and (card is None or not card.name):
        yield NO_CARD
    if space is None:
        yield "The disk doesn't answer."
    elif space.read_only:
        yield (
            "The disk can only be read (its file system met an error, or it is attached so): nothing new is kept. "
            "Stop and start the machine."
        )
    elif _is_nearly_full(space):
        yield (
            f"The disk is nearly full: {space.free_bytes / 1e9:.1f} of {space.total_bytes / 1e9:.0f} GB are free. "
            "Remove outputs or models, or enlarge it."
        )


def _is_nearly_full(space: Space) -> bool:
    """Whether less than 5 % of a disk is free, but no less than 2 GiB and no more than 20 GiB are asked for."""
    share = min(_ENOUGH_FREE_BYTES, _LEAST_FREE_SHARE * space.total_bytes)
    return space.free_bytes < max(_LEAST_FREE_BYTES, share)


def status_line(report: Report, why: str) -> str:
    """Return why the machine is on and until when, or `why` it powers off."""
    now, clock = report.now, report.idle
    if why:
        return f"Powering off: {why}"
    if report.drain is not None:
        return f"Draining until {now.tell(report.drain.until)}, {_count(report)}"
    stops_at = clock.stops_at(now.boot)
    if stops_at is None:
        return f"On: {_count(report)}"
    last = f"last use ({clock.kind}) {rfc3339(now.wall - now.boot + clock.used)}"
    holds = ", ".join(sorted(clock.live_holds(now.boot)))
    return f"On: {last}{f', held by {holds}' if holds else ''}; stops at {now.tell(stops_at)}"


def _count(report: Report) -> str:
    jobs = report.work.jobs
    return "ComfyUI's queue is unknown" if jobs is None else f"{jobs} prompts run or wait"
