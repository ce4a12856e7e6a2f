"""What happens in processes that are killed or stand still, and in those that go on. Each is forked for one life."""

import asyncio
import os
import pickle
import sqlite3
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import requests

from comfyweb.machine.model import Phase
from tests.crash import mutants
from tests.crash.points import Moment, Outside, Place, Point, halter, killer, watcher
from tests.crash.rig import Rig, keep
from tests.crash.stories import STORIES

GATE_KEY = "gate"
# Which phases tell the truth about a machine in this state.
TRUE = {
    "TERMINATED": {Phase.OFF, Phase.STARTING},
    "PROVISIONING": {Phase.STARTING, Phase.STOPPING},
    "STAGING": {Phase.STARTING, Phase.STOPPING},
    "RUNNING": {Phase.BOOTING, Phase.READY, Phase.DRAINING, Phase.STOPPING},
    "STOPPING": {Phase.STOPPING},
    "MISSING": {Phase.MISSING},
}


STORED = {
    "intents": "SELECT wanted, mode, by, json_extract(fault, '$.code'), ended_at IS NOT NULL FROM intent ORDER BY id",
    "attempts": "SELECT verb, json_extract(fault, '$.code'), ended_at IS NOT NULL FROM attempt ORDER BY id",
    "runs": "SELECT asked_at IS NOT NULL, ready_at IS NOT NULL, ended_at IS NOT NULL, reason FROM run ORDER BY id",
    "sessions": "SELECT jti, ended_at IS NOT NULL, revoked_at IS NOT NULL FROM session ORDER BY jti",
    "integrity": "PRAGMA integrity_check",
}


@dataclass(slots=True)
class Outcome:
    """What is left when a story is over: what the ledger and the cloud hold, and what was wrong on the way."""

    intents: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    attempts: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    runs: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    sessions: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    operations: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    heard: list[str] = field(default_factory=list[str])
    status: str = ""
    wrong: list[str] = field(default_factory=list[str])


def watched(folder: Path, url: str, story: str, mutant: str) -> None:
    """Live through the story without being killed; leave every moment in `moments`, the end in `outcome`."""
    mutants.become(mutant)
    rigs: list[Rig] = []
    moments: list[Moment] = []
    answered = 0
    send = requests.Session.send

    def counted(session: requests.Session, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        nonlocal answered
        answer = send(session, request, **more)
        answered += request.method == "POST"
        return answer

    requests.Session.send = counted  # pyright: ignore[reportAttributeAccessIssue] - its first parameter's name

    def saw(point: Point, place: Place) -> None:
        outside = None
        for rig in rigs:
            memory, heard = rig.memory, len(rig.host.heard)
            outside = Outside(memory.act, memory.acknowledged, rig.cloud.seen, answered, heard, _size(rig.path))
        moments.append(Moment(point, place, outside))

    tracer = watcher(saw)
    tracer.begin()
    outcome = asyncio.run(_live(folder, url, story, rigs))
    tracer.end()
    keep(folder / "moments", moments)
    keep(folder / "outcome", outcome)
    _end()


def killed(folder: Path, url: str, story: str, mutant: str, point: Point) -> None:
    """Live through the story until `point`."""
    mutants.become(mutant)
    killer(point, folder / "epitaph").begin()
    asyncio.run(_live(folder, url, story, []))
    _end()


def halted(folder: Path, url: str, story: str, mutant: str, points: Collection[Point], told: Connection) -> None:
    """Live through the story, and stand still at each of `points`, having said through `told` where that is."""
    mutants.become(mutant)
    halter(points, told.send).begin()
    asyncio.run(_live(folder, url, story, []))
    _end()


def reborn(folder: Path, url: str, story: str, mutant: str) -> None:
    """Go on where the killed one was, to the story's end; leave the end in `outcome`."""
    mutants.become(mutant)
    keep(folder / "outcome", asyncio.run(_live(folder, url, story, [])))
    _end()


def _end() -> None:
    """End without waiting for anything: the threads of a pool may still hold a connection."""
    os._exit(0)


async def _live(folder: Path, url: str, story: str, rigs: list[Rig]) -> Outcome:
    outcome = Outcome()
    acts = STORIES[story].acts
    rig = Rig(folder, url, STORIES[story].policy, by_itself=STORIES[story].by_itself)
    rigs.append(rig)
    memory, again = rig.memory, rig.reborn
    try:
        await rig.ledger.open()
        await _remember(rig, outcome)
        while memory.act < len(acts):
            act = acts[memory.act]
            if not memory.acknowledged:
                await act.do(rig)
                memory.acknowledged = True
                rig.remember()
            if again:
                again = False
                await rig.turn()
                _look_for_lies(rig, outcome)
            await act.over(rig)
            memory.act, memory.acknowledged = memory.act + 1, False
            rig.remember()
        await rig.live(20)
        _look_for_lies(rig, outcome)
        await rig.close()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the test wants to know
        outcome.wrong.append(f"{type(error).__name__}: {error}")
    _read(rig, outcome)
    return outcome


async def _remember(rig: Rig, outcome: Outcome) -> None:
    """Look whether the host's key is still the same and those who logged out are still out."""
    memory = rig.memory
    key = await rig.ledger.key(GATE_KEY, lambda: os.urandom(8).hex())
    if memory.key not in {"", key}:
        outcome.wrong.append("the host's key was forgotten")
    memory.key = key
    rig.remember()
    let_in = {each.jti for each in await rig.ledger.live(rig.now())} & memory.ended
    if let_in:
        outcome.wrong.append(f"logged in again: {let_in}")


def _look_for_lies(rig: Rig, outcome: Outcome) -> None:
    """Compare what the page shows with what is."""
    status = rig.cloud.status
    shown = rig.body["status"]
    fault = rig.body["fault"]
    if shown == "" and isinstance(fault, dict) and fault["code"] == "unavailable":
        return  # It says that Google can't be asked, and nothing else.
    if rig.phase not in TRUE[status]:
        outcome.wrong.append(f"the page says {rig.phase} while the machine is {status}")
    if shown != status and (shown, status) != ("", "MISSING"):
        outcome.wrong.append(f"the page says {shown} while the machine is {status}")


def _read(rig: Rig, outcome: Outcome) -> None:
    state = rig.cloud.state()
    outcome.status = rig.cloud.seen
    outcome.heard = rig.host.heard
    outcome.operations = [(each["operationType"], "error" if "error" in each else "") for each in state["operations"]]
    stored = _stored(rig.path)
    outcome.intents, outcome.attempts = stored["intents"], stored["attempts"]
    outcome.runs, outcome.sessions = stored["runs"], stored["sessions"]
    if stored["integrity"] != [("ok",)]:
        outcome.wrong.append(f"the database: {stored['integrity']}")


def left_in(folder: Path) -> dict[str, Any]:
    """Return what a killed life has left in its folder, without what differs from life to life."""
    files = {name: folder / name for name in ("memory", "host", "ledger.db")}
    memory, host = (
        pickle.loads(files[name].read_bytes()) if files[name].exists() else None  # noqa: S301 - as above
        for name in ("memory", "host")
    )
    people = (memory.act, memory.acknowledged, memory.ended, bool(memory.key)) if memory else None
    return {"people": people, "host": host and host[1], **(_stored(files["ledger.db"]) if memory else {})}


def _stored(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(database)) as db:
        if not db.execute("SELECT name FROM sqlite_master").fetchall():
            return {}
        return {name: db.execute(query).fetchall() for name, query in STORED.items()}


def _size(path: Path) -> int:
    """Tell one state of the database from another: each commit makes its log longer."""
    total = 0
    for end in ("", "-wal"):
        try:
            total += Path(f"{path}{end}").stat().st_size
        except FileNotFoundError:
            continue
    return total
