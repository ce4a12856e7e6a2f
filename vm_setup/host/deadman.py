"""When the dead-man switch powers off: the keeper is dead or stuck, and nobody has used the machine for its limit.

It stands beside the keeper and needs nothing of it but its file, from which it knows the last use that was seen. It
asks ComfyUI itself and stops no job, but not for ever: with the keeper dead nobody can say when a job is stuck.
Times are seconds of a clock that never jumps (CLOCK_BOOTTIME).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from vm_setup.host.idle import DEFAULT_MINUTES, LONGEST_HOLD_SECONDS, LONGEST_MINUTES, LONGEST_SILENCE_SECONDS
from vm_setup.host.reading import mapping, number

STALE_SECONDS = 300.0
LEAST_STALE_SECONDS = 60.0
SLACK_SECONDS = 600.0
HARD_CAP_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What the switch itself has seen in this boot: its first look, the last job, and when it powered off."""

    since: float
    busy: float | None = None
    powered_off: float | None = None

    def to_json(self) -> dict[str, object]:
        """Return what the next look has to know."""
        return {"since": self.since, "busy": self.busy, "powered_off": self.powered_off}

    @classmethod
    def from_json(cls, saved: object, *, now: float) -> "Watch":
        """Read what `to_json` returned in this boot. Whatever isn't that is a first look, now."""
        parts = mapping(saved) or {}
        since, busy, off = (_past(parts.get(name), now) for name in ("since", "busy", "powered_off"))
        return cls(since=now if since is None else since, busy=busy, powered_off=off)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeper:
    """What the keeper's file says: its last complete round, the last use, the limit, and until when it meant to stay.

    `busy` is when it last saw a job, if it had not seen it end.
    """

    at: float | None = None
    used: float | None = None
    busy: float | None = None
    limit: float = DEFAULT_MINUTES * 60
    held_until: float | None = None

    @classmethod
    def from_json(cls, saved: object, *, now: float, default_limit: float = DEFAULT_MINUTES * 60) -> "Keeper":
        """Read the keeper's file. What is missing or makes no sense counts as unknown, the limit as the default."""
        parts = mapping(saved) or {}
        idle = mapping(parts.get("idle")) or {}
        limit = number(parts.get("limit"))
        if limit is None or not 0 < limit <= LONGEST_MINUTES * 60:
            limit = default_limit
        return cls(
            at=_past(parts.get("at"), now),
            used=_past(idle.get("used"), now),
            busy=_past(idle.get("seen"), now) if idle.get("busy") is True else None,
            limit=limit,
            held_until=latest_hold(mapping(idle.get("holds")) or {}, now=now),
        )


def latest_hold(holds: Mapping[str, object], *, now: float) -> float | None:
    """Return the end of the longest hold; one that asks for more than a day from now is no hold."""
    ends = [until for until in map(number, holds.values()) if until is not None and until <= now + LONGEST_HOLD_SECONDS]
    return max(ends, default=None)


def is_stale(keeper: Keeper, *, watch: Watch, now: float) -> bool:
    """Whether the keeper has done no complete round for so long that nothing can restart it any more."""
    patience = max(LEAST_STALE_SECONDS, min(STALE_SECONDS, keeper.limit))
    return now - (watch.since if keeper.at is None else keeper.at) >= patience


def should_power_off(
    keeper: Keeper, watch: Watch, *, jobs: int | None, answering: bool, held_until: float | None, now: float
) -> bool:
    """Whether to power off although the keeper, which is stale, has not.

    `jobs` is what ComfyUI says; None when it doesn't, and then `answering` tells a process that hangs from none.
    `held_until` is the end of the longest hold on the machine.
    """
    dead_since = watch.since if keeper.at is None else keeper.at
    if now - dead_since >= HARD_CAP_SECONDS:
        return True
    busy = max(watch.busy or 0.0, keeper.busy or 0.0)
    if jobs or (jobs is None and answering and busy and now - busy < LONGEST_SILENCE_SECONDS):
        return False
    used = max(watch.since if keeper.used is None else keeper.used, busy)
    slack = min(SLACK_SECONDS, keeper.limit)
    return now >= max(used + keeper.limit + slack, keeper.held_until or 0.0, held_until or 0.0)


def _past(value: object, now: float) -> float | None:
    """Return a time that is not in the future."""
    time = number(value)
    return time if time is not None and 0 <= time <= now else None
