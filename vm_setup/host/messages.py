"""What the host tells: `_host/status` by HTTPS, and `phase` and `heartbeat` by guest attributes.

The two short ones are for when HTTPS is silent, so they fit 2 KB whatever happens on the machine.
Inside the host times are seconds of a clock that never jumps; they become RFC 3339 UTC only here.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone

from vm_setup.host.drain import Drain
from vm_setup.host.idle import Idle

ATTRIBUTE_LIMIT = 2048
WRITE_EVERY_SECONDS = 5.0
HEARTBEAT_EVERY_SECONDS = 60.0

Message = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Now:
    """The same moment on both clocks: `boot` counts from the boot and never jumps, `wall` from the epoch."""

    boot: float
    wall: float

    def tell(self, boot: float | None) -> str | None:
        """Return a time of the boot clock as people write it."""
        return None if boot is None else rfc3339(self.wall + boot - self.boot)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the boot: `waiting`, `running`, `done` or `failed`. Seconds it has taken, and usually takes."""

    name: str
    state: str = "waiting"
    seconds: float | None = None
    expected_seconds: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The prompt that runs now, the node it is at, and how far that is."""

    prompt_id: str
    node: str
    percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What ComfyUI said last. `running` and `pending` are None while it doesn't answer."""

    ready: bool = False
    version: str = ""
    running: int | None = None
    pending: int | None = None
    current: Current | None = None

    @property
    def jobs(self) -> int | None:
        """Prompts that run or wait, or None when that is unknown."""
        return None if self.running is None or self.pending is None else self.running + self.pending


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The graphics card and the data disk; None where it couldn't be read."""

    gpu_name: str = ""
    gpu_memory_used_mib: int | None = None
    gpu_memory_total_mib: int | None = None
    disk_free_bytes: int | None = None
    disk_total_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What ComfyUI is served with: `mode` is none (plain HTTP), self-signed, letsencrypt or cloudflare.

    `trusted`: browsers take it without asking. `until` is RFC 3339, or empty.
    """

    mode: str = "none"
    trusted: bool = False
    name: str = ""
    until: str = ""


def rfc3339(wall: float) -> str:
    """Return seconds since the epoch as RFC 3339 in UTC, to the millisecond."""
    text = datetime.fromtimestamp(wall, tz=timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that there is to tell at one moment; each message is a part of it."""

    host_version: str
    boot_id: str
    now: Now
    steps: Sequence[Step]
    work: Work
    hardware: Hardware
    idle: Idle
    certificate: Certificate = field(default_factory=Certificate)
    drain: Drain | None = None
    stopping: bool = False
    warnings: Sequence[str] = ()

    @property
    def phase(self) -> str:
        """Return the host's phase: `warming`, `ready`, `draining` or `stopping`."""
        if self.stopping:
            return "stopping"
        if self.drain is not None:
            return "draining"
        return "ready" if self.work.ready else "warming"

    @property
    def milestone(self) -> str:
        """Return what makes `phase` worth writing again when it changes: what a step does, not the seconds of one."""
        steps = [[step.name, step.state, step.detail] for step in self.steps]
        certificate = asdict(self.certificate)
        return encode({"phase": self.phase, "steps": steps, "tls": certificate, "warnings": list(self.warnings)})

    def status(self) -> Message:
        """Return the body of `GET /_host/status`."""
        holds = sorted(self.idle.live_holds(self.now.boot).items())
        return {
            "host_version": self.host_version,
            "boot_id": self.boot_id,
            "at": rfc3339(self.now.wall),
            "phase": self.phase,
            "steps": [asdict(step) for step in self.steps],
            "comfyui": {
                "ready": self.work.ready,
                "version": self.work.version,
                **self._queue(),
                "current": asdict(self.work.current) if self.work.current else None,
            },
            "gpu": {
                "name": self.hardware.gpu_name,
                "memory_used_mib": self.hardware.gpu_memory_used_mib,
                "memory_total_mib": self.hardware.gpu_memory_total_mib,
            },
            "activity": {
                "at": self.now.tell(self.idle.used),
                "kind": self.idle.kind,
                "stops_at": self._stops_at(),
                "holds": [{"name": name, "until": self.now.tell(until)} for name, until in holds],
            },
            "drain": self._drain(),
            "disk": {"free_bytes": self.hardware.disk_free_bytes, "total_bytes": self.hardware.disk_total_bytes},
            "tls": asdict(self.certificate),
            "warnings": list(self.warnings),
        }

    def short(self) -> Message:
        """Return the guest attribute `phase`, at most 2 KB: what doesn't fit is left out, the least useful first."""
        shapes = (self._short(words=160, steps=24), self._short(words=40, steps=12), self._short(words=0, steps=4))
        return next((shape for shape in shapes if len(encode(shape)) <= ATTRIBUTE_LIMIT), self._bare())

    def heartbeat(self, *, acks: Sequence[str] = ()) -> Message:
        """Return the guest attribute `heartbeat`; `acks` are the `jti` of the commands that were taken lately."""
        return {
            "boot_id": self.boot_id,
            "at": rfc3339(self.now.wall),
            "queue": {"running": self.work.running, "pending": self.work.pending},
            "stops_at": self._stops_at(),
            "acks": list(acks),
        }

    def _queue(self) -> Message:
        return {"queue_running": self.work.running, "queue_pending": self.work.pending}

    def _stops_at(self) -> str | None:
        return self.now.tell(self.idle.stops_at(self.now.boot))

    def _drain(self) -> Message | None:
        return {"until": self.now.tell(self.drain.until), "remaining": self.work.jobs} if self.drain else None

    def _bare(self) -> Message:
        return {"boot_id": self.boot_id[:64], "at": rfc3339(self.now.wall), "phase": self.phase}

    def _short(self, *, words: int, steps: int) -> Message:
        """Keep that many characters of each text, and that many steps, the last of those that have begun."""
        begun = [step for step in self.steps if step.state != "waiting"][-steps:]
        shown = [step for step in self.steps if step in begun or step.state == "waiting"][:steps]
        return {
            **self._bare(),
            "steps": [asdict(replace(step, name=step.name[:64], detail=step.detail[:words])) for step in shown],
            "comfyui": {"ready": self.work.ready, **self._queue()},
            "activity": {"stops_at": self._stops_at()},
            "drain": self._drain(),
            # Who doesn't trust the certificate hears of it in this way alone.
            "tls": asdict(replace(self.certificate, name=self.certificate.name[:64])),
            "warnings": [warning[:words] for warning in self.warnings[:4] if words],
        }


def encode(message: Message) -> str:
    """Return a message as compact JSON in ASCII, in which a character is a byte."""
    return json.dumps(message, separators=(",", ":"))


def phase_is_due(*, changed: bool, written_at: float | None, now: float) -> bool:
    """Whether to write `phase`: when it says something new, but at most every 5 s."""
    return changed and (written_at is None or now - written_at >= WRITE_EVERY_SECONDS)


def heartbeat_is_due(*, new_acks: bool, written_at: float | None, now: float) -> bool:
    """Whether to write `heartbeat`: every minute, and at most every 5 s when there is a command to acknowledge."""
    every = WRITE_EVERY_SECONDS if new_acks else HEARTBEAT_EVERY_SECONDS
    return written_at is None or now - written_at >= every
