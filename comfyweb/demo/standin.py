"""The inside of the emulated machine: it boots, runs the host's rules and a ComfyUI, and powers itself off.

It listens only while it has power, so that without it a connection is refused, as with a real machine.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Generator
from typing import Protocol

import uvicorn
from starlette.types import Receive, Scope, Send

from comfyweb.demo.comfyui import Disk
from comfyweb.demo.comfyui_api import StandInComfyUI
from comfyweb.demo.comfyui_proxy import RealComfyUI
from comfyweb.demo.listening import bound
from comfyweb.demo.standin_gate import Gate
from comfyweb.demo.standin_host import Host
from comfyweb.demo.standin_metadata import Metadata
from vm_setup.host.messages import Now, Step, Work, heartbeat_is_due, phase_is_due

_LOG = logging.getLogger(__name__)
_STEPS = (
    ("disk", 1.0, "Mounting the persistent disk"),
    ("driver", 2.5, "Loading the graphics driver"),
    ("gate", 1.0, "Opening the gate"),
    ("comfyui", 5.5, "Starting ComfyUI"),
)
FAST = 0.07
_JOB_SECONDS = 8.0
_POWER_OFF_SECONDS = 2.0
_LOOK_SECONDS = 0.5


def read_clocks() -> Now:
    """Return this moment on the computer's clocks."""
    return Now(boot=time.monotonic(), wall=time.time())


class Inside(Protocol):
    """What is behind the gate: a stand-in for ComfyUI, or a real one."""

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request or a websocket."""
        ...

    async def run(self) -> None:
        """Work until cancelled."""
        ...

    def work(self) -> Work:
        """Return what it was last seen doing."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


class _Server(uvicorn.Server):
    """A server inside another program, to which the signals belong."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Leave them alone."""
        yield


class StandIn:
    """A guest of the emulated machine (see `guest.Guest`), at http://localhost:`port` while it has power.

    `metadata_url` is where the metadata server listens, without a path; `poweroff` switches the machine off.
    `comfyui_url` is a real ComfyUI to put behind the gate (default: `DEMO_COMFYUI_URL`, else a stand-in).
    `now` tells the time to the rules; `pace` is how long boot and jobs take, as a share of the usual; the limits stay.
    """

    def __init__(
        self,
        *,
        port: int,
        metadata_url: str,
        poweroff: Callable[[], None],
        pace: float = 1.0,
        comfyui_url: str | None = None,
        now: Callable[[], Now] = read_clocks,
    ) -> None:
        self._port = port
        self._metadata_url = metadata_url
        self._poweroff = poweroff
        self._pace = pace
        self._comfyui_url = os.environ.get("DEMO_COMFYUI_URL", "") if comfyui_url is None else comfyui_url
        self._now = now
        self._disk = Disk()
        self._host: Host | None = None
        self._life: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()

    async def power_on(self, boot_id: str) -> None:
        """Boot; when it is on already, as after a reset, lose power first. Raises OSError if the port is taken."""
        async with self._changing:
            await self._cut()
            listener = bound(self._port)
            steps = [Step(name=name, expected_seconds=round(seconds * self._pace, 2)) for name, seconds, _ in _STEPS]
            self._host = Host(boot_id=boot_id, now=self._now, steps=steps)
            self._life = asyncio.create_task(self._live(self._host, listener))
            self._life.add_done_callback(_say_why)

    async def power_off(self) -> None:
        """Lose power: jobs, history, cookies and connections are gone; what is on the disk stays."""
        async with self._changing:
            await self._cut()

    def idle_in(self, seconds: float) -> None:
        """Pretend that nobody has used it for so long that the idle stop is `seconds` away. Nothing while it is off."""
        if self._host is not None:
            self._host.idle_in(seconds)

    async def _cut(self) -> None:
        life, self._life, self._host = self._life, None, None
        if life is not None:
            life.cancel()
            await asyncio.wait({life})

    async def _live(self, host: Host, listener: socket.socket) -> None:
        """Be a machine with power, until cancelled."""
        comfyui = self._real() if self._comfyui_url else self._stand_in(host)
        server = _Server(
            uvicorn.Config(
                Gate(host, comfyui.app),
                ws="wsproto",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=1,
            )
        )
        metadata = Metadata(self._metadata_url, pause=self._pace)
        serving = asyncio.create_task(server.serve([listener]))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(metadata.follow(lambda found, name: host.configure(found, audience=name)))
                tasks.create_task(self._tell(host, metadata))
                tasks.create_task(self._boot(host, comfyui))
                tasks.create_task(self._judge(host, comfyui))
        finally:
            host.close_all()
            server.should_exit = True
            await asyncio.wait({serving}, timeout=_POWER_OFF_SECONDS)
            serving.cancel()
            listener.close()
            await comfyui.close()
            await metadata.close()

    async def _boot(self, host: Host, comfyui: Inside) -> None:
        for index, (_, seconds, detail) in enumerate(_STEPS):
            host.begin_step(index, detail)
            await asyncio.sleep(seconds * self._pace)
        await comfyui.run()

    async def _judge(self, host: Host, comfyui: Inside) -> None:
        """Hold what happens against the rules, and power off once when they say so."""
        while True:
            host.see(comfyui.work())
            why = host.why_power_off()
            if why and not host.stopping:
                host.stopping = True
                host.log(f"powering off: {why}")
                self._poweroff()
            await asyncio.sleep(_LOOK_SECONDS * self._pace)

    async def _tell(self, host: Host, metadata: Metadata) -> None:
        """Write the guest attributes when they are due. What could not be written is tried again at the next turn."""
        told: dict[str, float] = {}
        milestone, acks = "", list[str]()
        while True:
            report = host.report()
            moment = report.now.boot
            if phase_is_due(changed=report.milestone != milestone, written_at=told.get("phase"), now=moment):
                told["phase"] = moment
                if await metadata.write("phase", report.short()):
                    milestone = report.milestone
            new = list(host.acks)
            if heartbeat_is_due(new_acks=new != acks, written_at=told.get("heartbeat"), now=moment):
                told["heartbeat"] = moment
                if await metadata.write("heartbeat", report.heartbeat(acks=new)):
                    acks = new
            await asyncio.sleep(_LOOK_SECONDS * self._pace)

    def _stand_in(self, host: Host) -> Inside:
        return StandInComfyUI(
            self._disk, job_seconds=max(1.0, _JOB_SECONDS * self._pace), origin=lambda: host.app_origin
        )

    def _real(self) -> Inside:
        return RealComfyUI(self._comfyui_url, pause=2.0 * self._pace)


def _say_why(life: asyncio.Task[None]) -> None:
    """Leave a trace of a machine that died of itself: that is a fault of ours."""
    if not life.cancelled() and (error := life.exception()) is not None:
        _LOG.error("The stand-in died.", exc_info=error)
