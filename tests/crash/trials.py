"""Which moments to kill at, and what must be true after each: the trial of one story."""

import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

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


@dataclass(frozen=True, slots=True)
class Left:
    """What a kill leaves: the place it was at, the folder, and the cloud."""

    place: str
    folder: Path
    cloud: bytes


class Trials:
    """Runs lives in processes that are forked from a warm one (importing Google's client takes a second)."""

    def __init__(self, story: str, mutant: str = "") -> None:
        self.story = story
        self._mutant = mutant
        self._fork = multiprocessing.get_context("forkserver")
        self._fork.set_forkserver_preload([lives.__name__, *LOADED_LATE])
        self._box = CloudBox(manual=True, times=STORIES[story].times)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """End the cloud."""
        self._box.close()

    def watch(self) -> Watched:
        """Live through the story once, without a kill."""
        with self._folder() as folder:
            self._life(lives.watched, folder)
            return Watched(_read(folder / "moments"), _read(folder / "outcome"))

    @contextmanager
    def killed(self, point: Point) -> Generator[Left]:
        """Kill at `point`; give what that left."""
        with self._folder() as folder:
            code = self._life(lives.killed, folder, point)
            assert code == -signal.SIGKILL, f"it came past {point} and ended with code {code}"
            epitaph = folder / "epitaph"
            place = epitaph.read_text()
            epitaph.unlink()
            yield Left(place, folder, self._box.copy())

    @contextmanager
    def halted(self, points: Sequence[Point]) -> Generator[Sequence[Left]]:
        """Live through the story once; give for each of these points what a kill there would have left.

        The process stands still while that is copied. So a story is not lived through anew up to each point, which
        with a tracer takes twice as long as what comes after.
        """
        left: list[Left] = []
        with self._folder() as folder, tempfile.TemporaryDirectory(dir=memory()) as copies:
            hears, tells = multiprocessing.Pipe(duplex=False)
            process = self._begun(lives.halted, folder, frozenset(points), tells)
            tells.close()
            try:
                while True:
                    assert hears.poll(PATIENCE), f"a life said nothing for {PATIENCE:g} s"
                    try:
                        place: str = hears.recv()
                    except EOFError:  # It has ended.
                        break
                    _stands(process)
                    copy = Path(copies) / str(len(left))
                    shutil.copytree(folder, copy)
                    left.append(Left(place, copy, self._box.copy()))
                    _signal(process, signal.SIGCONT)
                code = self._ended(process)
            except BaseException:
                _signal(process, signal.SIGKILL)  # Standing still, it would be waited for for ever.
                raise
            finally:
                hears.close()
            assert (code, len(left)) == (0, len(points)), f"{len(left)} of {len(points)} points, ended with code {code}"
            yield left

    def reborn(self, left: Left) -> Outcome:
        """Start again with what was left, which is used up by that; return the end of the story."""
        self._box.resume(left.cloud)
        code = self._ended(self._begun(lives.reborn, left.folder))
        end = left.folder / "outcome"
        return _read(end) if end.exists() else Outcome(wrong=[f"the next process ended with code {code}"])

    @contextmanager
    def _folder(self) -> Generator[Path]:
        """A new world, and an empty folder."""
        self._box.anew()
        with tempfile.TemporaryDirectory(dir=memory()) as name:
            STORIES[self.story].before(self._box.world, Path(name) / "ledger.db")
            yield Path(name)

    def _life(self, life: Callable[..., None], folder: Path, *more: object) -> int | None:
        return self._ended(self._begun(life, folder, *more))

    def _begun(self, life: Callable[..., None], folder: Path, *more: object) -> BaseProcess:
        process = self._fork.Process(target=life, args=(folder, self._box.url, self.story, self._mutant, *more))
        with _REAPING:
            process.start()
        return process

    def _ended(self, process: BaseProcess) -> int | None:
        ended = wait([process.sentinel], PATIENCE)
        with _REAPING:
            if not ended:
                process.kill()
                process.join()
                raise AssertionError(f"a life did not end within {PATIENCE:g} s")
            code = process.exitcode
            process.close()
        return code


def what_is_left(left: Left) -> object:
    """Return what a kill has left, without what differs from life to life."""
    _, cloud = pickle.loads(left.cloud)  # noqa: S301 - as above
    [machine] = cloud.first.machines.values()
    made = [(each.kind, each.error) for each in cloud.first.register.operations.values()]
    return lives.left_in(left.folder), machine.status, made


def _stands(process: BaseProcess) -> None:
    """Wait until no thread of it runs any more."""
    while not all(map(_is_still, Path(f"/proc/{process.pid}/task").iterdir())):
        time.sleep(0.0005)  # It has been told to: that takes the kernel no time worth naming.


def _is_still(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (FileNotFoundError, ProcessLookupError):
        return False  # This thread has just ended.


def _signal(process: BaseProcess, which: int) -> None:
    assert process.pid is not None
    os.kill(process.pid, which)


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
