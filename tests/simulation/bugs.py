"""Deliberate bugs of the app, each of a kind that somebody could write on a normal day. The simulation must catch them.

Each patches production code and nothing else. `caught_by` is the invariant that must break, and `world` the scene
(`scenes.py`) or the seed of a world-line of `HOURS` in which it does; without the bug the same world holds.
`docs/testing.md` lists them.
"""

import contextlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from comfyweb.cloud.cloud_error import CloudError
from comfyweb.control import books as books_module
from comfyweb.control import loop as loop_module
from comfyweb.control import observer as observer_module
from comfyweb.control.attempts import Attempts
from comfyweb.control.ledger import Ledger, Standing
from comfyweb.control.loop import Loop
from comfyweb.control.observer import Observer
from comfyweb.machine import decide as decide_module
from comfyweb.machine import guards
from comfyweb.machine.model import (
    Attempt,
    Decision,
    Ending,
    Enforce,
    Guard,
    Intent,
    MachineSeen,
    Observation,
    Policy,
    Run,
    StopMode,
    StopReason,
    Verdict,
    Wanted,
)
from tests.simulation import scenes
from tests.simulation.scenes import Scene
from tests.simulation.stories import Story

HOURS = 4.0
LATER = timedelta(days=30)
Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One bug: what somebody got wrong, who catches it, where."""

    what: str
    caught_by: str
    world: Scene | int
    plant: Patch


def _always(*, value: object) -> Callable[..., object]:
    return lambda *_args: value  # pyright: ignore[reportUnknownLambdaType]


def _first(every: timedelta, seen: Observation) -> timedelta:
    return every


def _replays_with_a_new_request_id(patch: pytest.MonkeyPatch) -> None:
    send, begin = Attempts._send, Ledger.begin
    first: set[str] = set()

    async def begun(self: Ledger, *args: Any) -> Attempt:
        attempt = await begin(self, *args)
        first.add(attempt.request_id)
        return attempt

    async def sent(self: Attempts, attempt: Attempt) -> str | None:
        if attempt.request_id in first:
            first.discard(attempt.request_id)
            return await send(self, attempt)
        return await send(self, replace(attempt, request_id=str(uuid.uuid4())))

    patch.setattr(Ledger, "begin", begun)
    patch.setattr(Attempts, "_send", sent)


def _acts_on_old_looks(patch: pytest.MonkeyPatch) -> None:
    decide = decide_module.decide

    def decided(intent: Intent | None, seen: Observation, policy: Policy, now: datetime) -> Decision:
        if isinstance(seen.machine, MachineSeen):
            seen = replace(seen, machine=replace(seen.machine, at=now), machine_fault=None)
        return decide(intent, seen, policy, now)

    patch.setattr(loop_module, "decide", decided)


def _hides_that_google_is_away(patch: pytest.MonkeyPatch) -> None:
    async def look(self: Observer) -> None:
        with contextlib.suppress(CloudError):
            self.seen = replace(self.seen, machine=await self._compute.look(self._place.zone))

    patch.setattr(Observer, "_look_at_machine", look)


def _guards_what_others_started(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(guards, "guarded", _always(value=True))


def _forgets_at_restart(patch: pytest.MonkeyPatch) -> None:
    asked: set[tuple[int, int]] = set()
    ask, standing = Ledger.ask, Ledger.standing
    newest = {"process": 0}
    begin = Loop.__init__

    def born(self: Loop, **parts: Any) -> None:
        newest["process"] += 1
        begin(self, **parts)

    async def remembered(self: Ledger, *args: Any) -> Intent:
        intent = await ask(self, *args)
        asked.add((newest["process"], intent.id))
        return intent

    async def known(self: Ledger) -> Standing:
        found = await standing(self)
        intent = found.open_intent
        ours = intent is not None and (newest["process"], intent.id) in asked
        return found if ours else replace(found, open_intent=None)

    patch.setattr(Loop, "__init__", born)
    patch.setattr(Ledger, "ask", remembered)
    patch.setattr(Ledger, "standing", known)


def _drains_without_end(patch: pytest.MonkeyPatch) -> None:
    def until(intent: Intent, run: Run | None, policy: Policy) -> datetime:
        return intent.asked_at + timedelta(hours=23)

    patch.setattr(guards, "drain_until", until)


def _drops_a_start_while_it_stops(patch: pytest.MonkeyPatch) -> None:
    towards = decide_module._towards_on

    def dropped(intent: Intent, machine: MachineSeen, *rest: Any) -> Any:
        return (None, Verdict()) if machine.status in decide_module.GOING else towards(intent, machine, *rest)

    patch.setattr(decide_module, "_towards_on", dropped)


def _counts_silence_while_it_did_not_listen(patch: pytest.MonkeyPatch) -> None:
    silence = guards.silence

    def counted(before: timedelta, passed: timedelta, seen: Observation, grace: timedelta, *, heard: bool) -> timedelta:
        quiet = silence(before, passed, seen, grace, heard=heard)
        return quiet if heard or not quiet else before + passed

    patch.setattr(observer_module, "silence", counted)


def _never_gives_up_a_silent_host(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(guards, "GIVEN_UP", LATER)


def _counts_the_session_from_when_it_was_ready(patch: pytest.MonkeyPatch) -> None:
    def later(run: Run | None) -> Run | None:
        return None if run is None else replace(run, started_at=run.ready_at or run.started_at + LATER)

    end, ending = guards.session_end, guards.ending

    def ends(run: Run | None, cap: timedelta) -> datetime | None:
        return end(later(run), cap)

    def announced(seen: Observation, policy: Policy, now: datetime) -> Ending | None:
        return ending(replace(seen, run=later(seen.run)), policy, now)

    patch.setattr(guards, "session_end", ends)
    patch.setattr(guards, "ending", announced)


def _sets_no_limit_at_google(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide_module, "needs_scheduling", _always(value=False))


def _takes_the_newest_wish_for_the_reason(patch: pytest.MonkeyPatch) -> None:
    standing = Ledger.standing

    async def read(self: Ledger) -> Standing:
        found = await standing(self)
        last = found.last_intent
        run = found.run and replace(found.run, reason=None)
        return replace(found, run=run, stop=last if last and last.wanted is Wanted.OFF else None)

    patch.setattr(Ledger, "standing", read)


def _a_guard_overrules_people(patch: pytest.MonkeyPatch) -> None:
    decide = decide_module.decide

    def decided(intent: Intent | None, seen: Observation, policy: Policy, now: datetime) -> Decision:
        decision = decide(intent, seen, policy, now)
        due = guards.due(seen, policy, now)
        if due is not None and intent is not None and intent.guard is None:
            return replace(decision, act=Enforce(guard=due[0], mode=due[1]))
        return decision

    patch.setattr(loop_module, "decide", decided)


def _repeats_without_a_pause(patch: pytest.MonkeyPatch) -> None:
    again = decide_module._again

    def at_once(tried: list[Attempt], intent: Intent) -> datetime | None:
        return None if again(tried, intent) is None else tried[-1].ended_at

    patch.setattr(decide_module, "_again", at_once)
    patch.setattr(decide_module, "MOVING", timedelta(seconds=0.2))
    patch.setattr(decide_module, "_spaced", _first)


def _stops_although_prompts_run(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide_module, "_nothing_can_run", _always(value=True))


def _keeps_a_gentle_stop_gentle(patch: pytest.MonkeyPatch) -> None:
    ask = Ledger.ask

    async def kept(self: Ledger, wanted: Wanted, mode: StopMode, by: str, now: datetime) -> Intent:
        opened = (await self.standing()).open_intent
        if opened is not None and opened.wanted is wanted:
            return opened
        return await ask(self, wanted, mode, by, now)

    patch.setattr(Ledger, "ask", kept)


def _ends_the_session_at_its_announcement(patch: pytest.MonkeyPatch) -> None:
    def due(seen: Observation, policy: Policy, now: datetime) -> tuple[Guard, StopMode] | None:
        end = guards.ending(seen, policy, now)
        return (end.guard, StopMode.NOW) if end is not None and end.guard is Guard.SESSION_CAP else None

    patch.setattr(guards, "due", due)


def _tells_any_reason(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(books_module, "why_stopped", _always(value=StopReason.IDLE))


BUGS = (
    Bug(
        what="a call whose answer was lost is repeated with a new `requestId`",
        caught_by="one-start-per-intent",
        world=5,
        plant=_replays_with_a_new_request_id,
    ),
    Bug(
        what="the loop acts although its last look failed or is old",
        caught_by="acts-on-fresh-looks",
        world=1,
        plant=_acts_on_old_looks,
    ),
    Bug(
        what="a failed look is swallowed: the page shows the last truth as if it were today's",
        caught_by="snapshot-true",
        world=5,
        plant=_hides_that_google_is_away,
    ),
    Bug(
        what="the guards stop machines that others started and whose host was never heard",
        caught_by="no-guard-without-cause",
        world=scenes.another_system,
        plant=_guards_what_others_started,
    ),
    Bug(
        what="a new process doesn't take up what the one before was asked for",
        caught_by="no-forgotten-intent",
        world=scenes.killed_after_a_stop,
        plant=_forgets_at_restart,
    ),
    Bug(
        what="a gentle stop has no deadline",
        caught_by="no-forgotten-intent",
        world=scenes.stop_during_an_endless_prompt,
        plant=_drains_without_end,
    ),
    Bug(
        what="a start that is pressed while the machine stops counts as done",
        caught_by="no-forgotten-intent",
        world=scenes.start_while_it_stops,
        plant=_drops_a_start_while_it_stops,
    ),
    Bug(
        what='"Stop now" during a gentle stop is taken for the same wish',
        caught_by="no-forgotten-intent",
        world=scenes.stop_now_during_a_gentle_stop,
        plant=_keeps_a_gentle_stop_gentle,
    ),
    Bug(
        what="a guard ends what a person waits for",
        caught_by="no-forgotten-intent",
        world=scenes.stop_of_a_silent_host,
        plant=_a_guard_overrules_people,
    ),
    Bug(
        what="the host's silence is counted over a time in which the app itself stood still",
        caught_by="no-guard-without-cause",
        world=scenes.silent_host_and_a_stall,
        plant=_counts_silence_while_it_did_not_listen,
    ),
    Bug(
        what="a host that fell silent is never given up",
        caught_by="silent-host",
        world=scenes.silent_host,
        plant=_never_gives_up_a_silent_host,
    ),
    Bug(
        what="the session is counted from when ComfyUI was ready",
        caught_by="session-cap",
        world=scenes.long_session_after_a_slow_boot,
        plant=_counts_the_session_from_when_it_was_ready,
    ),
    Bug(
        what="Compute Engine's own longest run is not set, so that nothing ends a run while the app is dead",
        caught_by="session-cap",
        world=scenes.long_session_without_the_app,
        plant=_sets_no_limit_at_google,
    ),
    Bug(
        what="the session's end comes at its announcement",
        caught_by="no-guard-without-cause",
        world=scenes.long_session_after_a_slow_boot,
        plant=_ends_the_session_at_its_announcement,
    ),
    Bug(
        what="the reason of a stop follows what is asked for afterwards",
        caught_by="true-reason",
        world=scenes.start_while_it_stops,
        plant=_takes_the_newest_wish_for_the_reason,
    ),
    Bug(
        what="every stop is told as an idle stop",
        caught_by="true-reason",
        world=scenes.start_while_it_stops,
        plant=_tells_any_reason,
    ),
    Bug(
        what="a gentle stop doesn't ask the host what runs",
        caught_by="no-prompt-is-cut",
        world=scenes.stop_during_an_endless_prompt,
        plant=_stops_although_prompts_run,
    ),
    Bug(
        what="a refused call is repeated at once, again and again",
        caught_by="calls-bounded",
        world=scenes.refused_for_a_while,
        plant=_repeats_without_a_pause,
    ),
)


def live(world: Scene | int) -> None:
    """Let a scene or a world-line happen. Raises Broken."""
    if isinstance(world, int):
        Story(world).run(HOURS)
    else:
        scenes.play(world)


def table() -> str:
    """Return the bugs as `docs/testing.md` lists them."""
    rows = [f"| {bug.what} | `{bug.caught_by}` | {_name(bug.world)} |" for bug in BUGS]
    return "\n".join(["| the bug | caught by | in |", "|---|---|---|", *rows])


def _name(world: Scene | int) -> str:
    return f"seed {world}" if isinstance(world, int) else world.__name__.replace("_", " ")
