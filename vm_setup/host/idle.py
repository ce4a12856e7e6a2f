"""When nobody has used the machine long enough to power it off. Only the host sees the truth, so it alone decides.

Use is real input, a prompt, an upload by the page, a keep-alive, and every moment in which a job runs or waits. A page
that is open, its websocket and its GETs are not: a forgotten tab makes them for ever. A machine that was never used
counts from its boot. What takes long without being use (a first installation) takes a hold, which has an end.

Times are seconds of a clock that never jumps (CLOCK_BOOTTIME), so that setting the wall clock stops nothing early.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from vm_setup.host.reading import mapping, number, word

DEFAULT_MINUTES = 30.0
LONGEST_MINUTES = 7 * 24 * 60.0
LONGEST_HOLD_SECONDS = 24 * 3600.0
LONGEST_SILENCE_SECONDS = 3600.0
EXTENSION = "extended"
STARTING = "starting"
DISK_HOLD = "disk"
_KIND_LIMIT = 64


def limit_seconds(text: object) -> tuple[float, str]:
    """Return the idle limit that `comfyweb-idle-minutes` asks for, and a warning when it can't be used."""
    default = DEFAULT_MINUTES * 60
    if text is None or text == "":
        return default, ""
    try:
        minutes = float(text) if isinstance(text, str) else None
    except ValueError:
        minutes = None
    if minutes is None or not 0 < minutes <= LONGEST_MINUTES:
        return default, f"comfyweb-idle-minutes is not a number of minutes; using {DEFAULT_MINUTES:g}."
    return minutes * 60, ""


def activity_of(method: str, path: str) -> str | None:
    """Return the kind of use that a request which passed the gate is; None for those that prove nothing."""
    if method != "POST":
        return None
    path = path.removeprefix("/api")
    if path == "/prompt":
        return "prompt"
    if path.startswith("/upload/"):
        return "upload"
    return {"/_host/activity": "input", "/_host/keep-alive": "keep-alive"}.get(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """The idle clock. Each method returns the clock after what happened; none changes it.

    `used` is when the machine was last used and `kind` by what; `busy` whether a job ran or waited when last seen,
    and `seen` when that was; `holds` are names with the times until which they keep the machine on.
    """

    limit: float
    used: float
    kind: str = "boot"
    busy: bool = False
    seen: float = 0.0
    holds: Mapping[str, float] = field(default_factory=dict[str, float])

    def note(self, kind: str, *, now: float) -> "Idle":
        """Somebody used the machine."""
        return replace(self, used=now, kind=kind) if now >= self.used else self

    def see_queue(self, jobs: int | None, *, now: float, alive: bool = False) -> "Idle":
        """ComfyUI was asked how many jobs run and wait; None when it didn't answer, which is no use of the machine.

        The clock restarts at the moment at which the last job was seen to be over. While a process that had jobs is
        silent but `alive`, they are taken to go on: a node may keep it from answering. That ends after an hour.
        """
        if jobs is None and alive and self.busy and now - self.seen < LONGEST_SILENCE_SECONDS:
            return self
        busy = bool(jobs)
        noted = self.note("job", now=now) if busy or (self.busy and jobs is not None) else self
        return replace(noted, busy=busy, seen=now if busy else self.seen)

    def hold(self, name: str, *, until: float, now: float) -> "Idle":
        """Stay on until then whatever happens, at most a day."""
        return replace(self, holds={**self.live_holds(now), name: min(until, now + LONGEST_HOLD_SECONDS)})

    def release(self, name: str) -> "Idle":
        """End a hold before its time."""
        return replace(self, holds={key: until for key, until in self.holds.items() if key != name})

    def extend(self, minutes: float, *, now: float) -> "Idle":
        """Stay on that many minutes longer than now foreseen (while busy: than foreseen if the jobs ended now)."""
        foreseen = max(now, self._foreseen(now))
        return self.hold(EXTENSION, until=foreseen + minutes * 60, now=now)

    def with_limit(self, limit: float) -> "Idle":
        """Count to another limit from now on."""
        return replace(self, limit=limit)

    def stops_at(self, now: float) -> float | None:
        """Return when the machine stops if nothing more happens; None while a job runs or waits."""
        return None if self.busy else self._foreseen(now)

    def should_power_off(self, now: float) -> bool:
        """Whether the machine has been unused for long enough. Never while a job runs or waits, or a hold is live."""
        stops_at = self.stops_at(now)
        return stops_at is not None and now >= stops_at

    def live_holds(self, now: float) -> dict[str, float]:
        """Return the holds that keep the machine on."""
        return {name: until for name, until in self.holds.items() if until > now}

    def to_json(self) -> dict[str, object]:
        """Return what has to be kept when the process restarts: a restart is no use of the machine."""
        parts: dict[str, object] = {"used": self.used, "kind": self.kind, "busy": self.busy, "seen": self.seen}
        return {**parts, "holds": dict(self.holds)}

    @classmethod
    def from_json(cls, saved: object, *, limit: float, now: float) -> "Idle":
        """Read what `to_json` returned in this boot. Whatever isn't that counts as a boot at `now`."""
        parts = mapping(saved) or {}
        used, kind = number(parts.get("used")), word(parts.get("kind"), limit=_KIND_LIMIT)
        if used is None or kind is None or used > now:
            return cls(limit=limit, used=now)
        seen = min(number(parts.get("seen")) or 0.0, now)
        clock = cls(limit=limit, used=used, kind=kind, busy=parts.get("busy") is True, seen=seen)
        for name, value in (mapping(parts.get("holds")) or {}).items():
            until = number(value)
            if until is not None and until > now:
                clock = clock.hold(name, until=until, now=now)
        return clock

    def _foreseen(self, now: float) -> float:
        used = now if self.busy else self.used
        return max([used + self.limit, *self.live_holds(now).values()])
