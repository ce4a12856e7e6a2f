"""What the keeper knows in one boot, and what follows from it: the rules of `vm_setup.host` held together.

No I/O here. The time comes in by `now`, what was seen outside by `see`, commands and use by calls.
"""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vm_setup.base.comfyui import Look, Reached
from vm_setup.host import idle, tokens
from vm_setup.host.boot import Start, with_comfyui
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
from vm_setup.host.gate import Told
from vm_setup.host.hang import Hang
from vm_setup.host.idle import Idle
from vm_setup.host.messages import Hardware, Now, Report, Work
from vm_setup.host.reading import items, mapping, number, word
from vm_setup.keeper import words
from vm_setup.keeper.seen import Seen

_LOG = logging.getLogger(__name__)
STARTING_SECONDS = 15 * 60.0
_TELL_EVERY_SECONDS = 1.0
_ACKS = 20
_KNOWN_ENDS = 50
_WORD_LIMIT = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the metadata asks for."""

    trust: tokens.Trust
    limit: float
    warning: str
    orders: Sequence[Order]


class Judge:
    """One boot, from the keeper's first start in it; a later process goes on with what the first one `saved`.

    Without `verify` no signature can be checked, so no command is obeyed. `limit`, in seconds, is that of an earlier
    boot, until the metadata tells this one's.
    """

    def __init__(
        self,
        *,
        boot_id: str,
        version: str,
        now: Now,
        verify: tokens.Verify | None,
        limit: float = idle.DEFAULT_MINUTES * 60,
        saved: object = None,
    ) -> None:
        self._boot_id = boot_id
        self._version = version
        self._verify = verify
        self._trust = tokens.Trust()
        self._seen = Seen(looked_at=False)
        self._comfyui = ""
        self._limit_warning = ""
        parts = mapping(saved) or {}
        if parts.get("boot_id") != boot_id:
            parts = {}
        known = number(parts.get("limit"))
        if known is not None and 0 < known <= idle.LONGEST_MINUTES * 60:
            limit = known
        self._idle = Idle.from_json(parts.get("idle"), limit=limit, now=now.boot)
        if not parts:
            self._idle = self._idle.hold(idle.STARTING, until=now.boot + STARTING_SECONDS, now=now.boot)
        self._drain = Drain.from_json(parts.get("drain"))
        self._memory = tokens.Memory.from_json(parts.get("tokens"))
        self._ready_at = number(parts.get("ready_at"))
        self._began = number(parts.get("began"))
        self._restarted = number(parts.get("restarted"))
        self._ends = [one for item in items(parts.get("ends")) or [] if (one := word(item, limit=_WORD_LIMIT))]
        self._ends_known = "ends" in parts
        acks = [one for item in items(parts.get("acks")) or [] if (one := word(item, limit=tokens.WORD_LIMIT))]
        self._holds_began = _numbers(parts.get("holds_began"))
        self._holds = _numbers(parts.get("holds"))
        self.acks: deque[str] = deque(acks, maxlen=_ACKS)
        self.stopping = word(parts.get("stopping"), limit=_WORD_LIMIT) or ""
        self._hang = Hang(restarted=self._restarted)
        self._gone_since: float | None = None
        self._refusal_told = -_TELL_EVERY_SECONDS

    def to_json(self, now: Now) -> dict[str, object]:
        """Return what has to be kept when the process restarts; `at` tells the dead-man switch that a round is done."""
        return {
            "boot_id": self._boot_id,
            "at": now.boot,
            "limit": self._idle.limit,
            "idle": self._idle.to_json(),
            "drain": self._drain.to_json() if self._drain else None,
            "tokens": self._memory.to_json(),
            "acks": list(self.acks),
            "ends": self._ends,
            "ready_at": self._ready_at,
            "began": self._began,
            "restarted": self._hang.restarted,
            "holds_began": self._holds_began,
            "holds": self._holds,
            "stopping": self.stopping,
        }

    @property
    def app_origin(self) -> str:
        """The app's origin as metadata has it; empty until it is known."""
        return self._trust.issuer

    @property
    def checks(self) -> bool:
        """Whether signatures can be checked."""
        return self._verify is not None

    def read(self, attributes: Mapping[str, object], *, audience: str, now: Now) -> Asked:
        """Read the machine's metadata, signatures checked; changes nothing, and may take a moment."""
        origin, said = attributes.get("comfyweb-app-origin"), attributes.get(METADATA_KEY)
        trust = tokens.Trust(
            issuer=origin.rstrip("/") if isinstance(origin, str) else "",
            audience=audience,
            keys=tokens.read_keys(attributes.get("comfyweb-keys")),
        )
        limit, warning = idle.limit_seconds(attributes.get("comfyweb-idle-minutes"))
        orders: list[Order] = []
        if self._verify is None:
            if said not in {None, "", "[]"}:
                _LOG.warning("Commands in metadata are refused: no signature can be checked here.")
        else:
            memory, booted = tokens.Memory(), now.wall - now.boot
            for order in take(said, trust=trust, verify=self._verify, memory=memory, now=now.wall, booted=booted):
                if isinstance(order, Order):
                    orders.append(order)
                else:
                    _LOG.warning("Command in metadata refused: %s.", order.value)
        return Asked(trust=trust, limit=limit, warning=warning, orders=orders)

    def configure(self, asked: Asked, *, now: Now) -> None:
        """Follow the metadata: whom to believe, the idle limit, and commands, each once."""
        self._trust, self._limit_warning = asked.trust, asked.warning
        self._idle = self._idle.with_limit(asked.limit)
        for order in asked.orders:
            if self.spend(order.claims, now=now):
                self.carry_out(order.command, order.claims, now=now)
                self.acks.append(order.claims.jti)

    def check(self, token: str, request: tokens.Request, *, now: Now) -> tokens.Claims | None:
        """Return what the app's token says when it is good for that request; it must be spent before it is obeyed."""
        if self._verify is None:
            return None
        claims = tokens.check(
            token, purpose=tokens.Purpose.HOST, trust=self._trust, verify=self._verify, now=now.wall, request=request
        )
        if isinstance(claims, tokens.Refusal):
            if now.boot - self._refusal_told >= _TELL_EVERY_SECONDS:  # strangers can cause thousands
                self._refusal_told = now.boot
                _LOG.warning("Call refused: %s.", claims.value)
            return None
        return claims

    def spend(self, claims: tokens.Claims, *, now: Now) -> bool:
        """Use a token up; False when it was used before."""
        return self._memory.spend(claims, now=now.wall) is None

    def carry_out(self, command: Command, claims: tokens.Claims, *, now: Now) -> None:
        """Do what the app asks."""
        _LOG.info("Command: %s.", command)
        match command:
            case KeepAlive():
                self.note("keep-alive", now=now)
            case Extend(minutes):
                until = self._clock(now).extend(minutes, now=now.boot).holds[idle.EXTENSION]
                self._idle = self._idle.hold(idle.EXTENSION, until=until, now=now.boot)
            case StartDrain(seconds, stay):
                self._drain = Drain.start(seconds, now=now.boot, stay=stay)
            case CancelDrain():
                self._drain = None
            case Revoke(session):
                until = tokens.revoked_until(claims, session, now=now.wall)
                self._memory.revoke(session, until=until, now=now.wall)

    def note(self, kind: str, *, now: Now) -> None:
        """Somebody used the machine."""
        self._idle = self._idle.note(kind, now=now.boot)

    def see(self, seen: Seen, *, now: Now) -> None:
        """Take in what was seen outside, and judge it."""
        before, self._seen = self._seen, seen
        if seen.process is not None and self._began is None:
            self._began = now.boot
        self._follow_holds(seen.holds, now)
        if seen.look is None:
            return
        self._hang = self._hang.see(
            seen.process,
            answers=seen.look.reached is Reached.ANSWERED,
            gone=seen.look.reached is Reached.REFUSED,
            card_percent=seen.card.percent if seen.card else None,
            now=now.boot,
        )
        if seen.look is not before.look:
            self._see_look(seen.look, now)

    def why_power_off(self, now: Now) -> str:
        """Return why the machine has to power off now; empty while it doesn't."""
        jobs = self._jobs(now)
        if self._drain is not None and self._drain.should_power_off(jobs, now=now.boot):
            return "drained" if jobs == 0 and not self._drain.stay else "the drain's deadline"
        return "idle" if self._clock(now).should_power_off(now.boot) else ""

    def should_restart_comfyui(self, now: Now) -> bool:
        """Whether ComfyUI hangs; counts as restarted when it says yes."""
        card_seen = self._seen.card is not None and self._seen.card.percent is not None
        if self.stopping or not self._hang.should_restart(jobs=self._idle.busy, card_seen=card_seen, now=now.boot):
            return False
        self._hang = self._hang.restart(now=now.boot)
        return True

    def told(self, now: Now) -> Told:
        """Return what the gate has to know."""
        return Told(
            at=now.boot,
            trust=self._trust,
            revoked=self._memory.revocations(now=now.wall),
            ready=self._ready_at is not None,
            busy=self._idle.busy,
            draining=self._drain is not None or bool(self.stopping),
            stays=self._drain is not None and self._drain.stay,
        )

    def report(self, now: Now, *, troubles: tuple[str, ...] = ()) -> Report:
        """Return all that there is to tell now; `troubles` are the keeper's own."""
        seen = self._seen
        card, space = seen.card, seen.space
        start = Start(began=self._began, answered=self._ready_at, expected_seconds=seen.expected_start_seconds)
        warnings = [
            *((self._limit_warning,) if self._limit_warning else ()),
            *troubles,
            *((words.DISK_FIRST,) if self._drain is not None and idle.DISK_HOLD in self._live_holds(now) else ()),
            *words.of_end(self._gone_since, now=now),
            *words.of_comfyui(self._hang, self._idle, self._seen.look, now=now),
            *(words.of_machine(card, space, seen.boot.steps) if seen.looked_at else ()),
            *seen.boot.warnings,
        ]
        return Report(
            host_version=self._version,
            boot_id=self._boot_id,
            now=now,
            steps=with_comfyui(seen.boot.steps, start, now=now.boot),
            work=self._work(seen.look),
            hardware=Hardware(
                gpu_name=card.name if card else "",
                gpu_memory_used_mib=card.used_mib if card else None,
                gpu_memory_total_mib=card.total_mib if card else None,
                disk_free_bytes=space.free_bytes if space else None,
                disk_total_bytes=space.total_bytes if space else None,
            ),
            idle=self._clock(now),
            certificate=seen.certificate,
            drain=self._drain,
            stopping=bool(self.stopping),
            warnings=warnings,
        )

    def _jobs(self, now: Now) -> int | None:
        """Return how many prompts a drain has to wait for: none, when there is no process that could have any.

        Nobody knows how much is left to do on the data disk, which must not be cut off either.
        """
        if idle.DISK_HOLD in self._live_holds(now):
            return None
        look = self._seen.look
        if look is None or look.reached is Reached.SILENT:
            return None if look is not None or self._idle.busy else 0
        return 0 if look.reached is Reached.REFUSED else look.jobs

    def _see_look(self, look: Look, now: Now) -> None:
        jobs = 0 if look.reached is Reached.REFUSED else look.jobs
        if look.reached is Reached.SILENT and not self._idle.busy and self._hang.seems_at_work(now=now.boot):
            jobs = 1  # a prompt that came since the last answer
        self._idle = self._idle.see_queue(jobs, now=now.boot, alive=look.reached is Reached.SILENT)
        self._comfyui = look.version or self._comfyui
        if look.reached is not Reached.REFUSED or self._ready_at is None:
            self._gone_since = None
        elif self._gone_since is None:
            self._gone_since = now.boot
        if look.reached is Reached.ANSWERED and self._ready_at is None:
            self._ready_at = now.boot
            self._idle = self._idle.release(idle.STARTING).note("ready", now=now.boot)
        if look.ended is not None:
            fresh = [one for one in look.ended if one not in self._ends]
            if fresh and self._ends_known and not self._idle.busy:
                self.note("job", now=now)
            self._ends = [*fresh, *self._ends][:_KNOWN_ENDS]
            self._ends_known = True

    def _follow_holds(self, holds: Mapping[str, float], now: Now) -> None:
        """Take in the holds of others. Each ends after a day, however often it is written anew.

        One that is taken away before its end has done what it was for, which may have been an installation longer than
        the idle limit: what was installed has its time to start, and who waited for it to begin, if that has answered.
        """
        if any(name not in holds for name in self._live_holds(now)):
            longest = STARTING_SECONDS if self._ready_at is None else min(STARTING_SECONDS, self._idle.limit)
            self._idle = self._idle.hold(idle.STARTING, until=now.boot + longest, now=now.boot)
        self._holds_began = {name: self._holds_began.get(name, now.boot) for name in holds}
        self._holds = {
            name: min(until, self._holds_began[name] + idle.LONGEST_HOLD_SECONDS) for name, until in holds.items()
        }

    def _live_holds(self, now: Now) -> dict[str, float]:
        """Return the holds of others that are still good."""
        return {name: until for name, until in self._holds.items() if until > now.boot}

    def _clock(self, now: Now) -> Idle:
        """Return the idle clock with the holds of others in it."""
        clock = self._idle
        for name, until in self._live_holds(now).items():
            clock = clock.hold(name, until=until, now=now.boot)
        return clock

    def _work(self, look: Look | None) -> Work:
        """Return ComfyUI as it is told: once it has answered it is ready, and a restart shows as an unknown queue."""
        ready = self._ready_at is not None
        if look is None:
            return Work(ready=ready, version=self._comfyui)
        return Work(
            ready=ready, version=self._comfyui, running=look.running, pending=look.pending, current=look.current
        )


def _numbers(saved: object) -> dict[str, float]:
    """Return the numbers of a JSON object by their names."""
    return {name: number_ for name, value in (mapping(saved) or {}).items() if (number_ := number(value)) is not None}
