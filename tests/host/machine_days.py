"""Simulated machine-days: people, jobs, silences and restarts around the keeper's judgement, held against the truth.

The truth is what really happens on the machine: when somebody touched it, when a job ran or waited, what was promised.
The judge sees only what a keeper sees. A stop is wrong when something of the truth forbids it, and late when it comes
more than half a minute after the truth allows it. Everything follows from the seed.
"""

import json
import random
from dataclasses import dataclass, field

from vm_setup.base.comfyui import Look, Reached
from vm_setup.host.commands import Extend, KeepAlive
from vm_setup.host.messages import Now
from vm_setup.host.tokens import Claims
from vm_setup.keeper.judge import Judge
from vm_setup.keeper.seen import Card, Seen, Space

DAY = 86400.0
LATE_SECONDS = 30.0
NEAR_SECONDS = 1.0
LOOK_SECONDS = 1.0
FAR_SECONDS = 20.0
_LIMITS = (60.0, 300.0, 900.0, 1800.0, 3600.0)
_SPACE = Space(free_bytes=10**12, total_bytes=10**13)


@dataclass(slots=True)
class Tally:
    """What was seen in many machine-days. `excused` are stops whose time nobody on the machine could have known."""

    seconds: float = 0.0
    stops: int = 0
    excused: int = 0
    wrong: list[str] = field(default_factory=list[str])
    late: list[str] = field(default_factory=list[str])
    latest: float = 0.0
    rounds: int = 0

    @property
    def days(self) -> float:
        """How many days machines were on."""
        return self.seconds / DAY


def _never(*_: object) -> bool:
    return False


class Boot:
    """One boot of one machine, until it stops itself."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - it simulates
        self._seed = seed
        self._boot = self._dice.uniform(5, 30)
        self._wall = 1.8e9
        self._limit = self._dice.choice(_LIMITS)
        self._judge = Judge(boot_id="b", version="1", now=self._now, verify=_never, limit=self._limit)
        self._process = 100
        self._ready_at = self._boot + self._dice.uniform(5, 600)
        self._used = self._boot  # the last true use
        self._job_ends = 0.0
        self._waiting: list[float] = []  # seconds that the jobs in the queue will take
        self._ended: list[str] = []
        self._silent_since = 0.0
        self._silent_until = 0.0
        self._last_job = 0.0
        self._prompted = 0.0
        self._looked = 1.0
        self._down_until = 0.0
        self._holds: dict[str, float] = {}
        self._promised = 0.0
        self._excused = 0.0  # until when a late stop follows from what nobody can see
        self._next_deed = self._ready_at + self._dice.expovariate(1 / 300)
        self._deeds = self._dice.choice((0, 0, 1, 3, 10, 40, 100))
        if self._dice.random() < 0.2:
            self._holds["install"] = self._ready_at + self._dice.uniform(0, 900)

    @property
    def _now(self) -> Now:
        return Now(boot=self._boot, wall=self._wall + self._boot)

    def live(self, tally: Tally) -> None:
        """Live until it stops itself, and say whether that was right."""
        began = self._boot
        while True:
            tally.rounds += 1
            self._work()
            look = self._look()
            self._boot += LOOK_SECONDS
            self._work()
            self._judge_once(look)
            up = self._boot >= self._down_until
            if up and self._judge.why_power_off(self._now):  # it looks once more, as the keeper does
                self._judge_once(self._look())
            if up and self._judge.why_power_off(self._now):
                self._settle(tally)
                tally.seconds += self._boot - began
                return
            if self._boot > self._allowed() + 10 * LATE_SECONDS:
                tally.late.append(f"seed {self._seed}: on at {self._boot:.0f}, allowed {self._allowed():.0f}")
                tally.seconds += self._boot - began
                return
            self._boot += self._pause()

    def _settle(self, tally: Tally) -> None:
        tally.stops += 1
        if self._busy() or self._boot < self._due() - 0.001:
            tally.wrong.append(
                f"seed {self._seed}: off at {self._boot:.0f}, due {self._due():.0f}, busy {self._busy()}"
            )
        delay = self._boot - self._allowed()
        if self._boot <= self._excused:
            tally.excused += 1
        else:
            tally.latest = max(tally.latest, delay)
            if delay > LATE_SECONDS:
                tally.late.append(f"seed {self._seed}: {delay:.0f} s late")

    def _busy(self) -> bool:
        return self._job_ends > self._boot or bool(self._waiting)

    def _due(self) -> float:
        """Return the moment before which no stop is right."""
        return max([self._used + self._limit, self._promised, *self._holds.values()])

    def _allowed(self) -> float:
        """Return when at the latest it has to stop, if nothing more happens."""
        starting = 0.0 if self._boot >= self._ready_at else self._ready_at
        return max(self._boot if self._busy() else 0.0, self._due(), starting, self._excused, self._down_until)

    def _pause(self) -> float:
        """Return how long until the next round: short where something is near, so that a day is soon over."""
        if self._boot < self._down_until:
            return self._down_until - self._boot
        near = [self._next_deed, self._job_ends, self._ready_at, self._due(), self._silent_until, self._excused]
        ahead = min((moment - self._boot for moment in near if moment > self._boot), default=NEAR_SECONDS)
        overdue = self._boot >= self._due() and not self._busy()
        return NEAR_SECONDS if overdue else max(NEAR_SECONDS, min(FAR_SECONDS, ahead) * self._dice.uniform(0.5, 1.1))

    def _work(self) -> None:
        """Let happen what has happened up to now, each thing at its own moment."""
        now = self._boot
        while True:
            job = self._job_ends if 0 < self._job_ends <= now else None
            deed = self._next_deed if self._deeds and self._next_deed <= now else None
            if job is not None and (deed is None or job <= deed):
                self._end_job(job)
            elif deed is not None:
                self._boot = deed
                self._deeds -= 1
                self._deed()
                self._boot = now
                self._next_deed = self._after(deed)
            else:
                break
        if self._job_ends:
            self._used = self._last_job = now
        if now >= self._ready_at:
            self._used = max(self._used, self._ready_at)

    def _after(self, deed: float) -> float:
        """Return when the next thing happens; now and then just before the machine would stop."""
        if self._dice.random() < 0.2:
            return max(deed, self._due() - self._dice.uniform(0, 2 * LOOK_SECONDS))
        return deed + self._dice.expovariate(1 / (self._limit * self._dice.uniform(0.05, 0.6)))

    def _end_job(self, end: float) -> None:
        self._used = self._last_job = max(self._used, end)
        self._ended.insert(0, f"j{len(self._ended)}@{end:.0f}")
        self._job_ends = end + self._waiting.pop(0) if self._waiting else 0.0

    def _deed(self) -> None:  # noqa: C901 - one line for each thing that may happen
        roll = self._dice.random()
        if self._boot < self._ready_at + 2 * FAR_SECONDS or self._boot < self._silent_until:
            self._restart_keeper()
        elif roll < 0.35:
            self._touch("input")
        elif roll < 0.6:
            self._prompt()
        elif self._boot < self._down_until or self._prompted >= self._looked:
            return  # no command reaches a keeper that is down; what hides a prompt that nobody saw proves nothing
        elif roll < 0.65:
            self._order(KeepAlive())
            self._used = self._boot
        elif roll < 0.7:
            minutes = self._dice.uniform(1, 90)
            own = max(self._boot + self._limit, self._due()) + minutes * 60
            self._order(Extend(minutes))
            told = self._judge.report(self._now).idle.stops_at(self._boot)  # what the page shows is promised
            self._promised = max(self._promised, own if told is None else told)
        elif roll < 0.78:
            self._silent_since = self._boot
            self._silent_until = self._boot + self._dice.choice((3, 30, 150, 600, 3000)) * self._dice.uniform(0.5, 1)
        elif roll < 0.84:
            self._restart_keeper()
        elif roll < 0.9:
            self._restart_comfyui()
        elif roll < 0.95:
            self._wall += self._dice.choice((-1, 1)) * self._dice.choice((1.0, 3600.0, 1e8))
        else:
            self._holds[f"h{self._dice.randrange(3)}"] = self._boot + self._dice.uniform(0, 3000)

    def _touch(self, kind: str) -> None:
        self._judge.note(kind, now=self._now)
        self._used = self._boot

    def _prompt(self) -> None:
        """Queue one to five jobs of a tenth of a second to two hours."""
        jobs = [self._dice.choice((0.1, 1, 20, 300, 7200)) * self._dice.uniform(0.3, 1) for _ in range(5)]
        jobs = jobs[: self._dice.randint(1, 5)]
        if self._job_ends:
            self._waiting += jobs
        else:
            self._job_ends = self._boot + jobs[0]
            self._waiting = jobs[1:]
        self._used = self._prompted = self._boot

    def _restart_keeper(self) -> None:
        """Kill the keeper; it comes back after a while with what it had written."""
        saved = json.loads(json.dumps(self._judge.to_json(self._now)))
        self._down_until = self._boot + self._dice.choice((1, 5, 25))
        unheard = self._limit if self._last_job > self._boot - 2 * FAR_SECONDS else 0.0  # a job's end, perhaps
        self._excused = max(self._excused, self._down_until + unheard + LATE_SECONDS)
        self._judge = Judge(boot_id="b", version="1", now=self._now, verify=_never, saved=saved)

    def _restart_comfyui(self) -> None:
        """Crash ComfyUI: its jobs are gone, and so is its history."""
        self._process += 1
        if self._busy():
            self._used = self._boot
        self._job_ends, self._waiting, self._ended = 0.0, [], []

    def _order(self, command: KeepAlive | Extend) -> None:
        claims = Claims(jti="j", session="s", session_exp=0, exp=0, rest={})
        self._judge.carry_out(command, claims, now=self._now)

    def _judge_once(self, look: Look) -> None:
        if self._boot < self._down_until:
            return
        if look.reached is Reached.ANSWERED:
            if self._looked <= 1.0:
                self._used = max(self._used, self._boot)  # the first answer that is heard begins the idle time
            self._looked = look.began
        self._holds = {name: until for name, until in self._holds.items() if until > self._boot - 5 * LATE_SECONDS}
        card = Card(name="T4", percent=90.0 if self._job_ends else 0.0)
        seen = Seen(look=look, process=self._process, card=card, space=_SPACE, holds=dict(self._holds))
        self._judge.see(seen, now=self._now)
        if self._judge.should_restart_comfyui(self._now):
            self._restart_comfyui()
            self._silent_until = 0.0

    def _look(self) -> Look:
        if self._boot < self._ready_at:
            return Look(began=self._boot, reached=Reached.REFUSED)
        if self._boot < self._silent_until:
            if (
                self._last_job > self._silent_since - 2 * FAR_SECONDS
            ):  # jobs that end behind a silence are seen to be over only when it ends
                self._excused = max(self._excused, self._silent_until + self._limit + LATE_SECONDS)
            return Look(began=self._boot, reached=Reached.SILENT)
        running = int(self._job_ends > 0)
        return Look(
            began=self._boot,
            reached=Reached.ANSWERED,
            running=running,
            pending=len(self._waiting),
            ended=self._ended[:10],
        )


def simulate(days: float, *, seed: int) -> Tally:
    """Let machines live for that many days in all, one boot after the other."""
    tally = Tally()
    while tally.days < days:
        Boot(seed + tally.stops + len(tally.late)).live(tally)
    return tally
