"""What people do, act by act. Together the stories reach every line of the loop and the ledger."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from comfyweb.access.sessions import Session
from comfyweb.demo.model import Times
from comfyweb.demo.world import World
from comfyweb.machine.model import Phase, Policy, StopMode, Verb, Wanted
from tests.control.driving import POLICY
from tests.crash.rig import Rig

LONG = 300
Step = Callable[[Rig], Awaitable[None]]


def nothing_before(_world: World, _database: Path) -> None:
    """Begin with an empty folder and a machine that is as new."""


def an_old_system(world: World, database: Path) -> None:
    """Leave what the system before comfyweb left, and a database that everybody could read."""
    machine = next(iter(world.machines.values()))
    machine.metadata |= {"auth_user": "me", "auth_pass": "old", "startup-script": "#!/bin/sh"}
    database.touch(0o644)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """`do` is done until it was acknowledged, never after that; then the loop takes turns until `over` returns."""

    do: Step
    over: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Acts in order, the terms on which the machine runs, how slow the cloud is, and what was there before."""

    acts: Sequence[Act]
    policy: Policy = POLICY
    times: Times = field(default_factory=Times)
    before: Callable[[World, Path], None] = nothing_before
    by_itself: bool = False


def seen(phase: Phase) -> Step:
    """Over when people see this phase."""

    async def over(rig: Rig) -> None:
        await rig.until(phase, turns=LONG)

    return over


def lived(seconds: float) -> Step:
    """Over after this time."""

    async def over(rig: Rig) -> None:
        await rig.live(seconds)

    return over


def press(wanted: Wanted, mode: StopMode = StopMode.DRAIN, *, silent: bool = False) -> Step:
    """A button; with `silent` the host answers no more from then on."""

    async def do(rig: Rig) -> None:
        if silent:
            rig.falls_silent()
        await rig.ask(wanted, mode)

    return do


def happens(path: str, method: str = "POST", /, **body: object) -> Step:
    """Something happens in the cloud."""

    async def do(rig: Rig) -> None:
        rig.cloud.control(path, body or None, method=method)

    return do


ALL_WELL = happens("fault", "DELETE")


def goes_wrong(kind: str, verb: str, **more: object) -> Step:
    """The next call of this kind goes wrong."""
    return happens("fault", kind=kind, verb=verb, **more)


def keeps_going_wrong(kind: str, verb: str) -> Step:
    """From now on calls of this kind alone go wrong, also those that a killed process leaves to be repeated."""
    return both(ALL_WELL, goes_wrong(kind, verb, times=None))


def both(*steps: Step) -> Step:
    """One after the other. Only the last may be one that a kill can interrupt."""

    async def do(rig: Rig) -> None:
        for step in steps:
            await step(rig)

    return do


def answers(**changes: object) -> Step:
    """The host answers, with these differences."""

    async def do(rig: Rig) -> None:
        rig.says(**changes)

    return do


async def silence(rig: Rig) -> None:
    """The host answers no more."""
    rig.falls_silent()


async def jobs_are_done(rig: Rig) -> None:
    """The last job of a drain is done."""
    assert rig.host.says is not None
    rig.says(drain_until=rig.host.says.drain_until, drain_remaining=0)


def session(jti: str) -> Step:
    """Somebody logs in. Nothing is expected of a login that was not acknowledged, so it may be tried again."""

    async def do(rig: Rig) -> None:
        now = rig.now()
        if jti not in {each.jti for each in await rig.ledger.live(now)}:
            await rig.ledger.add(Session(jti=jti, issued_at=now, expires_at=now + timedelta(hours=24)))

    return do


async def logout(rig: Rig) -> None:
    """One session ends."""
    await rig.ledger.end("one", rig.now())
    rig.memory.ended |= {"one"}


async def logout_of_everybody(rig: Rig) -> None:
    """All sessions end."""
    await rig.ledger.end_all(rig.now())
    rig.memory.ended |= {"one", "two"}


def revoked(jti: str) -> Step:
    """Over when the host has been told of the end of this session, and that is stored."""

    async def over(rig: Rig) -> None:
        for _ in range(60):
            await rig.live(5)
            if f"revoke {jti}" in rig.host.heard and not await rig.ledger.unrevoked(rig.now()):
                return
        raise AssertionError("the host never heard of the logout")

    return over


async def guest_tells(rig: Rig) -> None:
    """The host writes how far its boot is, by way of Google."""
    rig.say_by_guest_attributes("phase")


async def clicks(rig: Rig) -> None:
    """An impatient person presses Start again and again."""
    rig.falls_silent()
    for _ in range(3):
        await rig.ask(Wanted.ON)


async def a_call_from_yesterday(rig: Rig) -> None:
    """A call was stored long ago by a process that died before it made it."""
    if not (await rig.ledger.standing()).attempts:
        await rig.ledger.begin(Verb.START, "us-central1-a", "5b1fd2cd-8fd3-4ac5-a1a1-5fb6b4b5a1e0", None, rig.now())
    rig.cloud.advance(3600)


async def a_wrong_clock(rig: Rig) -> None:
    """Our computer's clock is an hour ahead, until it is killed."""
    rig.wrong = timedelta(hours=1)


def slowly(phase: Phase) -> Step:
    """Over when people see this phase, which takes long; each look is fresh enough to be acted on."""

    async def over(rig: Rig) -> None:
        for _ in range(LONG):
            await rig.turn()
            if rig.phase is phase:
                return
            rig.cloud.advance(25)
        raise AssertionError(f"{phase} was not reached: {rig.phase}")

    return over


async def a_turn_by_itself(rig: Rig) -> None:
    """The loop takes a turn that nobody has woken it for, and knows until when the run may last."""
    await rig.has_turned()
    assert rig.loop.seen.machine is not None
    assert rig.loop.latest_end is not None


async def somebody_watches(rig: Rig) -> None:
    """A monitoring system asks how it goes, and whether anything can be stored."""
    assert rig.loop.measured.looked_at is not None
    await rig.ledger.probe()


async def the_database_is_held(rig: Rig) -> None:
    """Another program holds the database when there is something to write: people are told, and the loop goes on."""
    other = sqlite3.connect(rig.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    # Something that is not stored yet: what the killed one stored need not be written again.
    rig.says(stops_at=rig.now() + timedelta(minutes=21 if rig.reborn else 20))
    rig.loop.wake()
    while rig.body["fault"] is None:
        await asyncio.sleep(0)
    other.execute("ROLLBACK")
    other.close()
    await rig.turn()


async def a_turn_fails(rig: Rig) -> None:
    """Something in a turn fails that nobody has foreseen."""
    rig.fails = RuntimeError("unforeseen")
    await rig.turn()
    while rig.loop.trouble is None:
        await asyncio.sleep(0)
    await rig.turn()


ON = Act(do=press(Wanted.ON, silent=True), over=seen(Phase.BOOTING))
READY = Act(do=answers(), over=seen(Phase.READY))
NOW_OFF = Act(do=press(Wanted.OFF, StopMode.NOW, silent=True), over=seen(Phase.OFF))

# The short ones first: most places in the code are killed at in them.
STORIES: Mapping[str, Story] = {
    "what may not be asked": Story(
        acts=[
            Act(do=goes_wrong("unavailable", "testIamPermissions"), over=lived(16)),
            Act(do=a_call_from_yesterday, over=lived(6)),
            Act(do=a_wrong_clock, over=lived(16)),
        ]
    ),
    "somebody else's start": Story(
        acts=[
            Act(do=happens("machine", action="start"), over=seen(Phase.BOOTING)),
            READY,
            NOW_OFF,
        ]
    ),
    "refusals": Story(
        acts=[
            Act(do=both(keeps_going_wrong("stockout", "start"), press(Wanted.ON, silent=True)), over=seen(Phase.OFF)),
            Act(do=both(keeps_going_wrong("permission", "start"), press(Wanted.ON)), over=seen(Phase.OFF)),
            Act(do=both(ALL_WELL, press(Wanted.ON)), over=seen(Phase.BOOTING)),
            NOW_OFF,
        ]
    ),
    "start, work, gentle stop": Story(
        acts=[
            ON,
            READY,
            Act(do=answers(queue_running=1), over=somebody_watches),
            Act(do=press(Wanted.OFF), over=lived(6)),
            Act(do=jobs_are_done, over=seen(Phase.OFF)),
        ]
    ),
    "changes of mind": Story(
        acts=[
            ON,
            READY,
            Act(do=both(answers(queue_running=1), press(Wanted.OFF)), over=lived(4)),
            Act(do=press(Wanted.ON), over=seen(Phase.READY)),
            Act(do=press(Wanted.OFF, StopMode.NOW, silent=True), over=seen(Phase.STOPPING)),
            ON,
            NOW_OFF,
        ]
    ),
    "logouts": Story(
        acts=[
            ON,
            READY,
            Act(do=session("one"), over=lived(1)),
            Act(do=session("two"), over=lived(1)),
            Act(do=silence, over=lived(3)),
            Act(do=logout, over=lived(6)),
            Act(do=answers(), over=revoked("one")),
            Act(do=logout_of_everybody, over=revoked("two")),
            NOW_OFF,
        ]
    ),
    "the session's end": Story(
        policy=replace(POLICY, session_cap=timedelta(minutes=2)),
        acts=[
            ON,
            READY,
            Act(do=answers(), over=seen(Phase.DRAINING)),
            Act(do=answers(), over=seen(Phase.OFF)),
        ],
    ),
    "lost answers": Story(
        acts=[
            Act(
                do=both(
                    goes_wrong("lost-answer", "setMetadata"),
                    goes_wrong("lost-answer", "start"),
                    press(Wanted.ON, silent=True),
                ),
                over=seen(Phase.BOOTING),
            ),
            Act(do=goes_wrong("unavailable", "get", times=2), over=lived(10)),
            Act(
                do=both(
                    goes_wrong("lost-answer", "stop"),
                    goes_wrong("unavailable", "operations.get", seconds=30),
                    press(Wanted.OFF, StopMode.NOW),
                ),
                over=seen(Phase.OFF),
            ),
        ]
    ),
    "things that others do": Story(
        acts=[
            ON,
            Act(do=guest_tells, over=lived(3)),
            READY,
            Act(do=both(answers(queue_running=1), guest_tells), over=lived(10)),
            Act(do=both(silence, press(Wanted.OFF)), over=lived(8)),
            Act(do=happens("preempt"), over=seen(Phase.OFF)),
            Act(do=happens("machine", action="start"), over=seen(Phase.BOOTING)),
            Act(do=happens("machine", action="delete"), over=seen(Phase.MISSING)),
            Act(do=press(Wanted.ON), over=lived(20)),
        ]
    ),
    "what may not be read": Story(
        policy=replace(POLICY, metadata={**POLICY.metadata, "startup-script-url": "gs://bucket/host.sh"}),
        before=an_old_system,
        acts=[
            Act(do=goes_wrong("permission", "setScheduling"), over=lived(16)),
            Act(do=ALL_WELL, over=lived(1)),
            Act(do=both(keeps_going_wrong("permission", "operations.get"), clicks), over=seen(Phase.OFF)),
            Act(do=both(ALL_WELL, press(Wanted.ON)), over=seen(Phase.BOOTING)),
            Act(do=goes_wrong("permission", "getGuestAttributes"), over=lived(4)),
            NOW_OFF,
        ],
    ),
    "a cloud that takes its time": Story(
        times=Times(provisioning=timedelta(minutes=11), stopping=timedelta(minutes=6)),
        acts=[
            Act(do=press(Wanted.ON, silent=True), over=slowly(Phase.BOOTING)),
            Act(do=press(Wanted.OFF, StopMode.NOW), over=slowly(Phase.OFF)),
        ],
    ),
    "the loop by itself": Story(
        by_itself=True,
        acts=[
            ON,
            Act(do=silence, over=a_turn_by_itself),
            Act(do=answers(), over=seen(Phase.READY)),
            Act(do=answers(), over=the_database_is_held),
            Act(do=answers(), over=a_turn_fails),
            NOW_OFF,
        ],
    ),
}
