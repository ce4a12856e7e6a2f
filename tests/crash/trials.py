"""Which moments to kill at, and what must be true after each: the trial of one story."""

import multiprocessing
import pickle
import signal
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from tests.cloudbox import CloudBox
from tests.crash import lives
from tests.crash.lives import Outcome
from tests.crash.points import THE_LOOP_AND_THE_LEDGER, Moment, Outside, Place, Point
from tests.crash.stories import STORIES, Story
from tests.memory import memory

PATIENCE = 60.0
# What is imported only when it is needed, which every life does.
LOADED_LATE = ("comfyweb.cloud.google_calls", "alembic.command", "httpcore", "netrc", "sqlalchemy.dialects.sqlite")
# Whoever starts a process looks how the others have ended, and only the first who looks is told.
_REAPING = threading.Lock()


@dataclass(frozen=True, slots=True)
class Watched:
    """A story that nobody was killed in: its moments, and its end, which all others must come to."""

    moments: Sequence[Moment]
    outcome: Outcome


class Trials:
    """Runs lives in processes that are forked from a warm one (importing Google's client takes a second)."""

    def __init__(self, story: str, mutant: str = "") -> None:
        self._story = story
        self._mutant = mutant
        self._fork = multiprocessing.get_context("forkserver")
        self._fork.set_forkserver_preload([lives.__name__, *LOADED_LATE])
        self._box = CloudBox(manual=True, times=STORIES[story].times)

    def close(self) -> None:
        """End the cloud."""
        self._box.close()

    def watch(self) -> Watched:
        """Live through the story once, without a kill."""
        with self._folder() as folder:
            self._life(lives.watched, folder)
            return Watched(_read(folder / "moments"), _read(folder / "outcome"))

    def kill(self, point: Point, downtime: timedelta = timedelta()) -> tuple[str, Outcome]:
        """Kill at `point`, start again after `downtime`; return where that was, and the end of the story."""
        with self._folder() as folder:
            code = self._life(lives.killed, folder, point)
            assert code == -signal.SIGKILL, f"it came past {point} and ended with code {code}"
            if downtime:
                self._box.advance(downtime)
            code = self._life(lives.reborn, folder)
            place, end = (folder / "epitaph").read_text(), folder / "outcome"
            return place, _read(end) if end.exists() else Outcome(wrong=[f"the next process ended with code {code}"])

    @contextmanager
    def _folder(self) -> Generator[Path]:
        """A new world, and an empty folder."""
        self._box.anew()
        with tempfile.TemporaryDirectory(dir=memory()) as name:
            STORIES[self._story].before(self._box.world, Path(name) / "ledger.db")
            yield Path(name)

    def _life(self, life: Callable[..., None], folder: Path, *more: object) -> int | None:
        process = self._fork.Process(target=life, args=(folder, self._box.url, self._story, self._mutant, *more))
        with _REAPING:
            process.start()
        ended = wait([process.sentinel], PATIENCE)
        with _REAPING:
            if not ended:
                process.kill()
                process.join()
                raise AssertionError(f"a life did not end within {PATIENCE:g} s")
            code = process.exitcode
            process.close()
        return code


def _read(path: Path) -> Any:
    return pickle.loads(path.read_bytes())  # noqa: S301 - written by our own process


def places(moments: Iterable[Moment]) -> set[Place]:
    """Return where the loop and the ledger can be killed in these moments."""
    return {each.place for each in moments if each.place.file in THE_LOOP_AND_THE_LEDGER}


def plan(moments: Mapping[str, Sequence[Moment]], *, all_places: bool = True) -> dict[str, list[Moment]]:
    """Choose the moments to kill at, so that nothing that a kill can do is left out.

    Two kills between which nothing left the process (no commit, no answered call, nothing told to people) leave the
    same behind, and what follows depends on that alone. So for each state of the outside there is one kill, and for
    each place in the loop and the ledger one kill somewhere, unless `all_places` are not asked for. States of a
    beginning that stories share are killed in once.
    """
    states: set[object] = set()
    done: set[Place] = set()
    chosen: dict[str, list[Moment]] = {}
    for story, all_of_it in moments.items():
        mine = chosen[story] = []
        alike: dict[object, list[Moment]] = {}
        for moment in all_of_it:
            alike.setdefault(_state(STORIES[story], moment.outside), []).append(moment)
        for state in [each for each in alike if each not in states]:
            best = next((each for each in alike[state] if _new(each, done)), alike[state][-1])
            mine.append(best)
            done.add(best.place)
        states |= alike.keys()
        for moment in all_of_it if all_places else ():
            if _new(moment, done):
                mine.append(moment)
                done.add(moment.place)
    return chosen


def _state(story: Story, outside: Outside | None) -> object:
    """Tell a state by what people did so far, on which terms, and what came of it."""
    acts = story.acts[: outside.act + 1] if outside else ()
    terms = (repr(story.policy), story.times, story.before, story.by_itself)
    return (*terms, tuple(id(act) for act in acts), outside)


def _new(moment: Moment, done: set[Place]) -> bool:
    return moment.place.file in THE_LOOP_AND_THE_LEDGER and moment.place not in done


def differences(expected: Outcome, found: Outcome) -> list[str]:
    """Say what a kill has changed that it must not change."""
    wrong = list(found.wrong)
    for name in ("intents", "attempts", "runs", "sessions", "operations", "status"):
        before, after = getattr(expected, name), getattr(found, name)
        if before != after:
            wrong.append(f"{name}: {after} instead of {before}")
    if _once(expected.heard) != _once(found.heard):
        wrong.append(f"the host heard {found.heard} instead of {expected.heard}")
    return wrong


def _once(heard: Sequence[str]) -> list[str]:
    """Leave out repetitions: what the host is told changes nothing the second time. Deadlines differ with the time."""
    words = [each.split()[0] if each.startswith("drain") else each for each in heard]
    return [each for number, each in enumerate(words) if number == 0 or each != words[number - 1]]
