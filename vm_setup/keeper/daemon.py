"""`comfyweb.pyz keeper`: looks, judges, tells and obeys until it powers the machine off.

Everything that may take long has a thread of its own. A round only takes what they have brought, so it never waits,
and systemd hears that all is well (WATCHDOG=1) only after a complete round with a fresh look at ComfyUI.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import FrameType
from urllib.parse import urlsplit

from vm_setup.base import files, tls
from vm_setup.base.clocks import boot_id
from vm_setup.base.comfyui import Look, Probe, Reached
from vm_setup.base.paths import Data
from vm_setup.base.places import COMFYUI_UNIT, NGINX_UNIT, STATE, VISITORS_UNIT
from vm_setup.base.processes import notify
from vm_setup.base.processes import run as run_command
from vm_setup.base.signatures import verifier
from vm_setup.host import allowed, power, tokens
from vm_setup.host.commands import Command
from vm_setup.host.idle import limit_seconds
from vm_setup.host.messages import Message, Now, Report, heartbeat_is_due, phase_is_due
from vm_setup.host.reading import number
from vm_setup.keeper import cutting, metadata, ports, state, system, words
from vm_setup.keeper.gate import Word
from vm_setup.keeper.judge import Judge
from vm_setup.keeper.polling import Poller
from vm_setup.keeper.ports import Holder
from vm_setup.keeper.seen import Card, Seen, Space
from vm_setup.keeper.server import Server
from vm_setup.keeper.world import World

_LOG = logging.getLogger(__name__)
ORIGIN = "app-origin"
_STUCK_SECONDS = 20.0
_OLD_SECONDS = 120.0
# The gate looks five times a second, and what it has let in reaches ComfyUI in no time.
_GATE_HEARS_SECONDS = 0.5


class Keeper:
    """The daemon. `run` doesn't return before `stop`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._file = world.paths.runtime / STATE
        now = world.now()
        saved = files.read_object(self._file)
        self._judge = Judge(
            boot_id=boot_id(world.paths.kernel),
            version=world.version,
            now=now,
            verify=verifier(),
            limit=limit_seconds(state.read_last_attributes(world.paths).get("comfyweb-idle-minutes"))[0],
            saved=saved,
        )
        self._expected_start = state.read_expected_start(world.paths)
        self._changing = threading.RLock()
        self._over = threading.Event()
        self._report = self._judge.report(now)
        self._milestone = ""
        self._acks: list[str] = []
        self._told: dict[str, float] = {}
        self._stopping_since = number(saved.get("stopping_since"))
        self._pushed: float | None = number(saved.get("pushed"))
        self._writes = True
        self._reached: Reached | None = None
        self._slept = world.slept()
        boot = self._boot_clock
        self._last_look = Probe(world.comfyui, now=boot).look
        probe = Probe(world.comfyui, now=boot)
        self._comfyui: Poller[Look] = Poller("comfyui", probe.look, every=world.look, now=boot, over=self._over)
        self._process: Poller[int | None] = Poller(
            "process", system.process_of, every=world.survey, now=boot, over=self._over
        )
        self._card: Poller[Card] = Poller("card", system.card, every=world.survey, now=boot, over=self._over)
        self._space: Poller[Space | None] = Poller(
            "disk", self._look_at_disk, every=world.survey, now=boot, over=self._over
        )
        self._ports: Poller[tuple[Holder, ...]] = Poller(
            "ports", self._look_at_ports, every=world.survey, now=boot, over=self._over
        )
        self._metadata = metadata.Metadata(world.metadata, self._configure, now=boot, over=self._over)
        self._writer = metadata.Writer(world.metadata)
        self._gate = Word(world.paths)
        self._cut: set[str] = set()
        self._comfyui_port = urlsplit(world.comfyui).port or 80
        self._server: Server | None = None
        self._deaf = False

    def run(self) -> None:
        """Keep the machine until `stop` is called, or for ever."""
        for poller in (self._comfyui, self._process, self._card, self._space, self._ports):
            poller.start()
        self._metadata.start()
        self._writer.start()
        self._serve()
        self._round()
        notify("READY=1")
        while not self._over.wait(self._world.every):
            self._serve()
            self._round()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def stop(self) -> None:
        """End after this round."""
        self._over.set()

    def health(self) -> Message:
        """Return what anybody may know."""
        return {"phase": "ready" if self._report.work.ready else "warming"}

    def status(self) -> Message:
        """Return all there is to tell."""
        with self._changing:
            return self._told_now().status()

    def journal(self, lines: int) -> bytes:
        """Return the newest lines of the journal."""
        return system.journal(lines)

    def check(self, token: str, request: tokens.Request) -> tokens.Claims | None:
        """Return what a token says when it is good for that request and was not used before."""
        now = self._world.now()
        claims = self._judge.check(token, request, now=now)
        if claims is None:
            return None
        with self._changing:
            spent = self._judge.spend(claims, now=now)
        return claims if spent else None

    def obey(self, command: Command, claims: tokens.Claims) -> None:
        """Do what the app asks, and remember it before saying so."""
        with self._changing:
            now = self._world.now()
            self._judge.carry_out(command, claims, now=now)
            self._save(now)

    def used(self) -> None:
        """Take note of real input."""
        with self._changing:
            self._judge.note("input", now=self._world.now())

    def _configure(self, attributes: Mapping[str, object], audience: str) -> None:
        """Follow the metadata."""
        now = self._world.now()
        asked = self._judge.read(attributes, audience=audience, now=now)
        with self._changing:
            self._judge.configure(asked, now=now)
            self._save(now)
        try:
            files.write(self._world.paths.runtime / ORIGIN, asked.trust.issuer, durable=False)
        except OSError as error:
            _LOG.warning("The extension is not told the app's origin (%s).", error)
        known = state.read_last_attributes(self._world.paths)
        if known and any(known.get(key, "") != attributes.get(key, "") for key in allowed.KEYS):
            _LOG.info("Who may come has changed.")
            self._start([("systemctl", "--no-block", "restart", VISITORS_UNIT)])

    def _serve(self) -> None:
        """Answer calls. A port that somebody else has is no reason to leave the machine alone: it is tried again."""
        if self._server is not None:
            return
        try:
            self._server = Server(self, port=self._world.port)
        except OSError as error:
            if not self._deaf:
                _LOG.error("Nobody can call: port %d can't be had (%s).", self._world.port, error.strerror)
            self._deaf = True
            return
        self._deaf = False
        self._server.start()

    def _round(self) -> None:
        """Do one round: take what was seen, judge, remember, tell, and power off when it is time."""
        now = self._world.now()
        seen = Seen(
            look=self._comfyui.latest(),
            process=self._process.latest(within=_OLD_SECONDS),
            card=self._card.latest(within=_OLD_SECONDS),
            space=self._space.latest(within=_OLD_SECONDS),
            looked_at=all(one.has_looked or one.age() > _OLD_SECONDS for one in (self._card, self._space)),
            boot=state.read_boot(self._world.paths, now=now.boot),
            holds=state.read_holds(self._world.paths),
            expected_start_seconds=self._expected_start,
            certificate=state.read_certificate(self._world.paths, wall=now.wall),
        )
        if seen.look is not None and seen.look.reached is not self._reached:
            self._reached = seen.look.reached
            _LOG.info("ComfyUI: %s.", seen.look.why or "it answers")
        slept = self._world.slept()
        with self._changing:
            if slept - self._slept >= 1:
                self._judge.note("resume", now=now)  # somebody woke the machine: not to see it go off
            self._slept = slept
            self._judge.see(seen, now=now)
            is_due = bool(self._judge.why_power_off(now)) and not self._judge.stopping
        if is_due:
            now = self._decide(seen)
        with self._changing:
            restart = self._judge.should_restart_comfyui(now)
            self._save(now)
            report = self._report = self._told_now()
        if restart:
            _LOG.error("ComfyUI runs but doesn't answer: it is restarted.")
            self._start([("systemctl", "--no-block", "restart", COMFYUI_UNIT)])
        self._tell(report)
        self._push(now)
        if self._comfyui.age() < _STUCK_SECONDS:
            notify("WATCHDOG=1", f"STATUS={words.status_line(report, self._judge.stopping)}")

    def _decide(self, seen: Seen) -> Now:
        """Decide to power off, unless ComfyUI, looked at once more, has got a prompt since the last look.

        The gate takes no prompt from before that look on, so that none is accepted and dies. This is the one place
        where a round waits, for a few seconds at most.
        """
        now = self._world.now()
        with self._changing:
            self._gate.tell(replace(self._judge.told(now), draining=True), now=now.boot)
        self._over.wait(_GATE_HEARS_SECONDS)
        look = self._last_look()
        now = self._world.now()
        with self._changing:
            self._judge.see(replace(seen, look=look), now=now)
            why = self._judge.why_power_off(now)
            if why:
                _LOG.warning("Powering off: %s.", why)
                self._judge.stopping = why
                self._stopping_since = now.boot
        return now

    def _told_now(self) -> Report:
        troubles = (
            *(() if self._judge.checks else (words.NO_CHECK,)),
            *(() if self._writes else (words.NO_STATE,)),
            *((words.NO_METADATA,) if self._metadata.is_silent() else ()),
            *map(ports.words, self._ports.latest(within=_OLD_SECONDS) or ()),
        )
        return self._judge.report(self._world.now(), troubles=troubles)

    def _save(self, now: Now) -> None:
        """Remember, and let the gate know, which looks five times a second."""
        told = self._judge.told(now)
        self._gate.tell(told, now=now.boot)
        for session in told.revoked.keys() - self._cut:
            cutting.cut_soon(session, self._comfyui_port, over=self._over)
        self._cut = set(told.revoked)
        power_state = {"stopping_since": self._stopping_since, "pushed": self._pushed}
        self._writes = state.write_object(self._file, {**self._judge.to_json(now), **power_state})

    def _tell(self, report: Report) -> None:
        """Write the guest attributes when they are due. What could not be written is tried again."""
        moment = report.now.boot
        phase_due = phase_is_due(
            changed=report.milestone != self._milestone or self._writer.failed("phase"),
            written_at=self._told.get("phase"),
            now=moment,
        )
        if phase_due:
            self._told["phase"] = moment
            self._milestone = report.milestone
            self._writer.write("phase", report.short())
        with self._changing:
            acks = list(self._judge.acks)
        news = acks != self._acks or self._writer.failed("heartbeat")
        if self._comfyui.has_looked and heartbeat_is_due(
            new_acks=news, written_at=self._told.get("heartbeat"), now=moment
        ):
            self._told["heartbeat"] = moment
            self._acks = acks
            self._writer.write("heartbeat", report.heartbeat(acks=acks))

    def _push(self, now: Now) -> None:
        """Power off, and more forcefully while that doesn't help."""
        if self._stopping_since is None:
            return
        how = power.due(since=self._stopping_since, last=self._pushed, now=now.boot)
        if how is None:
            return
        self._pushed = now.boot
        if how is power.FORCED:
            _LOG.error("The machine has not powered off by itself: forcing it.")
        self._start(power.COMMANDS[how])

    def _start(self, commands: Sequence[power.Argv]) -> None:
        """Run commands, one after the other, beside the round; one that hangs delays only the next."""

        def run() -> None:
            for argv in commands:
                code, _ = run_command(argv, seconds=20)
                if code:
                    _LOG.error("%s ended with code %d.", " ".join(argv), code)

        threading.Thread(target=run, name="commands", daemon=True).start()

    def _boot_clock(self) -> float:
        return self._world.now().boot

    def _look_at_ports(self) -> tuple[Holder, ...]:
        paths = self._world.paths
        if not (paths.units / NGINX_UNIT).exists():  # the archive's own serves until the set-up has put it aside
            return ()
        return ports.others((80,) if tls.current(paths).mode == tls.NONE else (80, 443), paths.kernel)

    def _look_at_disk(self) -> Space | None:
        paths = self._world.paths
        volume = next((one for one in (paths.mount, paths.fallback) if Data(volume=one).tree.exists()), paths.root)
        return system.space(volume)


def _die(args: threading.ExceptHookArgs) -> None:
    """End the process with a thread that broke: systemd starts it anew, and half a keeper is worse than none."""
    _LOG.critical("The thread %s broke.", args.thread and args.thread.name, exc_info=args.exc_value)
    os._exit(70)


def run(world: World) -> int:
    """Run the keeper until SIGTERM. Returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    threading.excepthook = _die
    keeper = Keeper(world)

    def end(_signal: int, _frame: FrameType | None) -> None:
        keeper.stop()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    _LOG.info("comfyweb %s keeps this machine (process %d).", world.version, os.getpid())
    keeper.run()
    return 0


def main(version: str) -> int:
    """Keep this machine. Returns the exit code."""
    return run(World(version=version))
