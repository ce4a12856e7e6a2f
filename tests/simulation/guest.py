"""The inside of the simulated machine: the host's own rules, with prompts that people queue, and all its ill health."""

import asyncio
import json
import random
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from comfyweb.cloud.host import HostSilent
from comfyweb.cloud.host_answer import host_seen, message
from comfyweb.demo.standin_host import Host
from comfyweb.machine.model import HostSeen, Phase
from tests.simulation.facts import Facts
from tests.simulation.process import Process
from vm_setup.host.commands import CancelDrain, Command, Extend, KeepAlive, StartDrain
from vm_setup.host.messages import Now, Step, Work, encode, heartbeat_is_due, phase_is_due
from vm_setup.host.tokens import Claims

if TYPE_CHECKING:
    from tests.simulation.outside import Outside

T = TypeVar("T")

NEVER = 1e12
_NOBODY = Claims(jti="simulated", session="", session_exp=0.0, exp=0.0, rest={})
TIMEOUT_SECONDS = 2.0
STEPS = ("disk", "driver", "gate", "comfyui")
PHASE_SECONDS = 5.0


class Guest:
    """The machine's inside, across boots: `https` and `attributes` are whether its two channels work.

    `comes_up` is whether ComfyUI ever answers; `frozen` that nothing runs any more; `lies` that a program on the
    machine writes heartbeats of its own making.
    """

    def __init__(self, outside: "Outside", facts: Facts, rng: random.Random) -> None:
        self._outside = outside
        self._facts = facts
        self._rng = rng
        self._host: Host | None = None
        self._life: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._queue: deque[float] = deque()
        self._job_ends = NEVER
        self._ready = self._admitted = False
        self.why_off = ""
        self.heal()

    def heal(self) -> None:
        """Be well from the next boot on, and reachable at once."""
        self.https = self.attributes = self.comes_up = True
        self.frozen = self.lies = False
        self._news.set()

    @property
    def jobs(self) -> int:
        """Prompts that truly run or wait."""
        return len(self._queue)

    @property
    def host(self) -> Host | None:
        """The host's software, while there is electricity."""
        return self._host

    @property
    def gone(self) -> bool:
        """Whether the host's software has ended, or has no electricity."""
        return self._host is None or (self._host.stopping and not self._ready)

    @property
    def ready(self) -> bool:
        """Whether ComfyUI answers behind the gate."""
        return self._host is not None and self._ready and not self.frozen

    def power(self, boot_id: str) -> None:
        """Have electricity for this boot, or none."""
        if self._life is not None:
            self._life.cancel()
        self._life, self._host, self._ready = None, None, False
        self._queue.clear()
        self._job_ends = NEVER
        if boot_id:
            self.why_off = ""
            self._admitted = False
            self._host = Host(boot_id=boot_id, now=self.clocks, steps=[Step(name=name) for name in STEPS])
            self._life = asyncio.create_task(self._live(self._host))
            self._facts.say("the guest boots")

    def clocks(self) -> Now:
        """Return the moment as the host's rules want it."""
        wall = self._outside.now().timestamp()
        return Now(boot=wall, wall=wall)

    def queue(self, seconds: float) -> bool:
        """Somebody queues a prompt that takes so long; a machine that is not ready or drains takes none.

        The gate lets in who has a ticket, and the app gives tickets while it shows the machine as ready.
        """
        shown = self._facts.snapshot
        self._admitted |= shown is not None and shown.phase is Phase.READY
        if self._host is None or not self.ready or not self._admitted or self._host.draining:
            return False
        self._host.note("prompt")
        self._queue.append(seconds)
        if len(self._queue) == 1:
            self._job_ends = self.clocks().boot + seconds
        self._look()
        self._news.set()
        return True

    def use(self) -> None:
        """Somebody pans the graph."""
        if self._host is not None and self.ready:
            self._host.note("input")
            self._news.set()

    # -- what the app says to it -------------------------------------------------------------------------------------

    def status(self) -> HostSeen:
        """Answer `GET /_host/status`. Raises HostSilent."""
        if self._host is None:
            raise HostSilent("no host")
        self._look()
        seen = host_seen(message(encode(self._host.report().status())) or {}, by_https=True)
        assert seen is not None
        return seen

    def obey(self, command: Command) -> None:
        """Do what the app asks by HTTPS."""
        if self._host is None:
            raise HostSilent("no host")
        self._host.carry_out(command, _NOBODY)
        self._look()
        self._news.set()

    # -- its life ----------------------------------------------------------------------------------------------------

    async def _live(self, host: Host) -> None:
        machine = self._outside.machine_there()
        host.configure(machine.metadata, audience="simulated")
        tell = asyncio.create_task(self._tell(host))
        try:
            for index in range(len(STEPS)):
                host.begin_step(index, "")
                await asyncio.sleep(self._rng.uniform(2, 40))
            while not self.comes_up:
                self._news.clear()
                await self._sleep(self._until_off(host))
                if self._goes_off(host):
                    return
            self._ready = True
            self._facts.say("ComfyUI answers")
            while True:
                self._news.clear()
                self._finish_jobs()
                self._look()
                if self._goes_off(host):
                    return
                await self._sleep(min(self._until_off(host), self._job_ends - self.clocks().boot))
        finally:
            tell.cancel()

    async def _sleep(self, seconds: float) -> None:
        """Wait that long, or until something happens; what hangs does nothing until it is mended."""
        if self.frozen:
            seconds = NEVER
        try:
            async with asyncio.timeout(min(max(seconds, 0.05), 3600)):
                await self._news.wait()
        except TimeoutError:
            pass

    def _until_off(self, host: Host) -> float:
        report = host.report()
        stops = [report.idle.stops_at(report.now.boot)]
        stops.append(report.drain.until if report.drain else None)
        return min((each - report.now.boot for each in stops if each is not None), default=NEVER)

    def _goes_off(self, host: Host) -> bool:
        if self.frozen or host.stopping or not host.why_power_off():
            return False
        self.why_off = host.why_power_off()
        host.stopping = True
        self._facts.say(f"the host powers off: {self.why_off}")
        self._shutting_down = asyncio.create_task(self._shut_down(host))
        return True

    async def _shut_down(self, host: Host) -> None:
        """End one service after the other, as systemd does, before the electricity goes."""
        await asyncio.sleep(self._rng.uniform(0, 10))
        self._ready = False
        await asyncio.sleep(self._rng.uniform(0, 10))
        if self._host is host:
            self._outside.power_off()

    def _finish_jobs(self) -> None:
        while self._queue and not self.frozen and self.clocks().boot >= self._job_ends:
            self._queue.popleft()
            self._job_ends = self._job_ends + self._queue[0] if self._queue else NEVER

    def _look(self) -> None:
        if self._host is None:
            return
        self._finish_jobs()
        if not self._ready:
            self._host.see(Work())
            return
        running = min(len(self._queue), 1)
        self._host.see(Work(ready=True, version="0.3", running=running, pending=len(self._queue) - running))

    async def _tell(self, host: Host) -> None:
        """Write the guest attributes when they are due."""
        phase_at = beat_at = None
        milestone = ""
        while True:
            if self.attributes and not self.frozen:
                report = host.report()
                now = report.now.boot
                if phase_is_due(changed=report.milestone != milestone, written_at=phase_at, now=now):
                    phase_at, milestone = now, report.milestone
                    self._outside.write_attribute("phase", encode(report.short()))
                if heartbeat_is_due(new_acks=False, written_at=beat_at, now=now):
                    beat_at = now
                    self._outside.write_attribute("heartbeat", encode(report.heartbeat()))
            if self.lies:
                self._lie(host)
            await asyncio.sleep(PHASE_SECONDS if not self._ready else 30.0)

    def _lie(self, host: Host) -> None:
        """Write what a malicious node would: a machine that is alive, busy for ever, and of whatever boot."""
        report = host.report()
        told = report.heartbeat() | {"queue": {"running": 3, "pending": 9}, "stops_at": None}
        if self._rng.random() < 0.5:
            told |= {"boot_id": "another", "at": self._in(timedelta(minutes=self._rng.choice([-5, 0, 3])))}
        self._outside.write_attribute("heartbeat", json.dumps(told))

    def _in(self, ahead: timedelta) -> str:
        return (self._outside.now() + ahead).isoformat()


class SimulatedHostClient:
    """The host as `HostClient` offers it, in virtual time. Its HTTPS, tokens and limits are tested elsewhere."""

    def __init__(self, outside: "Outside", facts: Facts, process: Process) -> None:
        self._outside = outside
        self._facts = facts
        self._process = process

    async def status(self, url: str) -> HostSeen:
        seen = await self._call(url, self._outside.guest.status)
        self._facts.heard()
        return seen

    async def keep_alive(self, url: str) -> None:
        await self._obey(url, KeepAlive())

    async def extend(self, url: str, minutes: float) -> None:
        await self._obey(url, Extend(minutes))

    async def drain(self, url: str, deadline: timedelta, *, stay: bool = False) -> None:
        await self._obey(url, StartDrain(max(0, round(deadline.total_seconds())), stay))

    async def cancel_drain(self, url: str) -> None:
        await self._obey(url, CancelDrain())

    async def revoke(self, url: str, session: str) -> None:
        await self._call(url, lambda: None)

    async def _obey(self, url: str, command: Command) -> None:
        await self._call(url, lambda: self._outside.guest.obey(command))
        self._facts.say(f"the host obeys: {command}")

    async def _call(self, url: str, act: Callable[[], T]) -> T:
        await self._process.step()
        outside = self._outside
        outside.advance()
        machine = outside.machine
        began = asyncio.get_running_loop().time()
        try:
            if machine is None or f"http://{machine.external_ip}" != url:
                await asyncio.sleep(0.01)
                raise HostSilent("nobody is there")
            if not outside.guest.https or outside.guest.frozen or outside.guest.gone:
                await asyncio.sleep(TIMEOUT_SECONDS)
                raise HostSilent("no answer in time")
            await asyncio.sleep(0.02)
            return act()
        finally:
            self._facts.waited(began)
