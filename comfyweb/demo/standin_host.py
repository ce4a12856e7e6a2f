"""The stand-in's host: the rules of `vm_setup.host` held together for one boot, as the host's own services will.

No I/O here: time comes in by `now`, requests, metadata and ComfyUI's queue by method calls.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from comfyweb.demo.signatures import verify
from vm_setup.host import cookies, idle, tokens
from vm_setup.host.bundle import version_of
from vm_setup.host.commands import (
    METADATA_KEY,
    CancelDrain,
    Command,
    Extend,
    KeepAlive,
    Order,
    Revoke,
    StartDrain,
    take,
)
from vm_setup.host.drain import Drain
from vm_setup.host.messages import Hardware, Now, Report, Step, Work, rfc3339

HOST_VERSION = "demo"
BOOT_HOLD_SECONDS = 45 * 60.0
LOG_LINES = 2000
ACKS = 20
_HARDWARE = Hardware(
    gpu_name="Stand-in T4",
    gpu_memory_used_mib=1210,
    gpu_memory_total_mib=15360,
    disk_free_bytes=61_203_283_968,
    disk_total_bytes=105_089_261_568,
)


@dataclass(eq=False, slots=True)
class Socket:
    """An open websocket: it is a use of its cookie, and `closed` is set when it must end."""

    digest: str
    session: str
    closed: asyncio.Event = field(default_factory=asyncio.Event)


class Host:
    """What the host knows in one boot, and what follows from it."""

    def __init__(self, *, boot_id: str, now: Callable[[], Now], steps: Sequence[Step]) -> None:
        self._now = now
        self._boot_id = boot_id
        self._version = HOST_VERSION
        self._steps = list(steps)
        self._step_began = now().boot
        self._cookies = cookies.Ledger(boot_id)
        self._memory = tokens.Memory()
        self._trust = tokens.Trust()
        self._work = Work()
        self._drain: Drain | None = None
        self._warnings: list[str] = []
        self._sockets: set[Socket] = set()
        self._lines: deque[str] = deque(maxlen=LOG_LINES)
        self.acks: deque[str] = deque(maxlen=ACKS)
        self.stopping = False
        self._booted = now().wall
        moment = now().boot
        clock = idle.Idle(limit=idle.limit_seconds(None)[0], used=moment)
        self._idle = clock.hold(idle.STARTING, until=moment + BOOT_HOLD_SECONDS, now=moment)
        self.log(f"boot {boot_id}")

    @property
    def app_origin(self) -> str:
        """The app's origin as metadata has it; empty until it is known."""
        return self._trust.issuer

    @property
    def ready(self) -> bool:
        """Whether ComfyUI has answered since the boot."""
        return self._work.ready

    @property
    def draining(self) -> bool:
        """Whether new prompts are refused."""
        return self._drain is not None or self.stopping

    @property
    def stays(self) -> bool:
        """Whether the drain lasts until its deadline in any case."""
        return self._drain is not None and self._drain.stay

    def log(self, line: str) -> None:
        """Add a line to what `_host/logs` shows."""
        self._lines.append(f"{rfc3339(self._now().wall)} {line}")

    def lines(self, count: int) -> list[str]:
        """Return the newest lines of the log."""
        return list(self._lines)[-count:] if count > 0 else []

    def configure(self, attributes: Mapping[str, str], *, audience: str) -> None:
        """Follow the machine's metadata: keys, the app's origin, the idle limit, and commands.

        The version is that of the start-up script which a machine with these metadata would have run.
        """
        self._version = version_of(attributes.get("startup-script", "")) or HOST_VERSION
        self._trust = tokens.Trust(
            issuer=attributes.get("comfyweb-app-origin", "").rstrip("/"),
            audience=audience,
            keys=tokens.read_keys(attributes.get("comfyweb-keys")),
        )
        limit, warning = idle.limit_seconds(attributes.get("comfyweb-idle-minutes"))
        self._idle = self._idle.with_limit(limit)
        self._warnings = [warning] if warning else []
        orders = take(
            attributes.get(METADATA_KEY),
            trust=self._trust,
            verify=verify,
            memory=self._memory,
            now=self._now().wall,
        )
        for order in orders:
            if isinstance(order, Order):
                self.carry_out(order.command, order.claims)
                self.acks.append(order.claims.jti)
            else:
                self.log(f"command refused: {order.value}")

    def begin_step(self, index: int, detail: str) -> None:
        """Begin a step of the boot; the one before it is done."""
        self.finish_steps(index)
        self._step_began = self._now().boot
        self._steps[index] = replace(self._steps[index], state="running", seconds=0.0, detail=detail)
        self.log(f"{self._steps[index].name}: {detail}")

    def finish_steps(self, count: int) -> None:
        """End the first `count` steps of the boot."""
        took = round(self._now().boot - self._step_began, 1)
        for index, step in enumerate(self._steps[:count]):
            if step.state == "running":
                self._steps[index] = replace(step, state="done", seconds=took)

    def see(self, work: Work) -> None:
        """ComfyUI was asked how it does. Its first answer ends the boot, and the idle clock starts then."""
        moment = self._now()
        if work.ready and not self._work.ready:
            self._idle = self._idle.release(idle.STARTING).note("ready", now=moment.boot)
            self.finish_steps(len(self._steps))
            self.log("ComfyUI answers")
        if not work.ready and self._work.ready:
            work = replace(work, ready=True, version=self._work.version)
        self._work = work
        self._idle = self._idle.see_queue(work.jobs, now=moment.boot)
        if work.jobs:
            self._cookies.touch_all(now=moment.wall)
        for socket in self._sockets:
            if self._cookies.touch(socket.digest, now=moment.wall) is None:
                socket.closed.set()

    def why_power_off(self) -> str:
        """Return why the machine has to power off now; empty while it doesn't."""
        moment = self._now().boot
        jobs = self._work.jobs if self._work.ready else 0
        if self._drain is not None and self._drain.should_power_off(jobs, now=moment):
            return "drained" if jobs == 0 else "the drain's deadline"
        return "idle" if self._idle.should_power_off(moment) else ""

    def report(self) -> Report:
        """Return all that there is to tell now."""
        moment = self._now()
        running = round(moment.boot - self._step_began, 1)
        return Report(
            host_version=self._version,
            boot_id=self._boot_id,
            now=moment,
            steps=[replace(step, seconds=running) if step.state == "running" else step for step in self._steps],
            work=self._work,
            hardware=_HARDWARE,
            idle=self._idle,
            drain=self._drain,
            stopping=self.stopping,
            warnings=self._warnings,
        )

    def enter(self, ticket: str) -> str | None:
        """Let a browser in by its ticket: return its new cookie, or None when the ticket is no good."""
        moment = self._now().wall
        claims = tokens.admit(
            ticket, trust=self._trust, verify=verify, memory=self._memory, now=moment, booted=self._booted
        )
        if isinstance(claims, tokens.Refusal):
            self.log(f"ticket refused: {claims.value}")
            return None
        value = secrets.token_urlsafe(32)
        self._cookies.add(value, session=claims.session, session_exp=claims.session_exp, now=moment)
        return value

    def passes(self, cookie_headers: Sequence[str]) -> cookies.Pass | None:
        """Return the pass that a request's cookies hold, and count its use."""
        return self._cookies.use(cookies.values(cookie_headers), now=self._now().wall)

    def authorise(self, token: str, request: tokens.Request) -> tokens.Claims | None:
        """Return what the app's token says when it is good for that request; it is good once."""
        claims = tokens.obey(
            token, request=request, trust=self._trust, verify=verify, memory=self._memory, now=self._now().wall
        )
        if isinstance(claims, tokens.Refusal):
            self.log(f"call refused: {claims.value}")
            return None
        return claims

    def carry_out(self, command: Command, claims: tokens.Claims) -> None:
        """Do what the app asks."""
        moment = self._now()
        self.log(f"command: {command}")
        match command:
            case KeepAlive():
                self.note("keep-alive")
            case Extend(minutes):
                self._idle = self._idle.extend(minutes, now=moment.boot)
            case StartDrain(seconds, stay):
                self._drain = Drain.start(seconds, now=moment.boot, stay=stay)
            case CancelDrain():
                self._drain = None
            case Revoke(session):
                until = tokens.revoked_until(claims, session, now=moment.wall)
                self._memory.revoke(session, until=until, now=moment.wall)
                self._cookies.revoke(session)
                self._close(session)

    def note(self, kind: str) -> None:
        """Somebody used the machine."""
        self._idle = self._idle.note(kind, now=self._now().boot)

    def idle_in(self, seconds: float) -> None:
        """Pretend that nobody has used it for so long that the idle stop is `seconds` away."""
        used = self._now().boot + seconds - self._idle.limit
        self._idle = replace(self._idle, used=used, kind="demo", holds={})

    def opened(self, holder: cookies.Pass) -> Socket:
        """Return what stands for a websocket that was just opened with that pass."""
        socket = Socket(holder.digest, holder.session)
        self._sockets.add(socket)
        return socket

    def closed(self, socket: Socket) -> None:
        """Forget a websocket that has ended."""
        self._sockets.discard(socket)

    def close_all(self) -> None:
        """End every open websocket."""
        for socket in self._sockets:
            socket.closed.set()

    def _close(self, session: str) -> None:
        for socket in self._sockets:
            if socket.session == session:
                socket.closed.set()
