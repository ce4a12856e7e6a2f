"""Every moment at which the app can be killed: each line of it, and each await on its way out and back in.

A `Tracer` sees them all in every thread (`sys.settrace`). At one of them the process kills itself with SIGKILL: nothing
is rolled back, closed or flushed, and every thread dies at once. Or at many of them it stands still as a whole
(SIGSTOP), while what a kill would leave there is copied.
"""

import dis
import functools
import inspect
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple

import comfyweb.cloud.compute
import comfyweb.cloud.google_calls
import comfyweb.control.migrate
from comfyweb.control import attempts, books, clock, database, ledger, loop, messenger, observer

# Of these every line must be killed at.
THE_LOOP_AND_THE_LEDGER = tuple(
    str(module.__file__) for module in (loop, clock, observer, attempts, messenger, books, ledger, database)
)
# Kills in these show what becomes of a call that was sent and whose answer was not read, and of half a database.
_BESIDE = (comfyweb.cloud.compute, comfyweb.cloud.google_calls, comfyweb.control.migrate)
_FILES = frozenset({*THE_LOOP_AND_THE_LEDGER, *(str(module.__file__) for module in _BESIDE)})
_MIGRATIONS = str(Path(str(comfyweb.control.migrate.__file__)).parent / "migrations")
_THREADS = ("ledger", "compute-engine")


class Place(NamedTuple):
    """A line, and what happens there: `line` before it runs, `leave` and `come back` around what an await waits for."""

    file: str
    line: int
    kind: str

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line} ({self.kind})"


class Point(NamedTuple):
    """One moment of a story: threads differ in their order from run to run, each thread's own moments don't."""

    thread: str
    number: int


class Outside(NamedTuple):
    """All that outlives the process, as far as it tells one state from another.

    What people had done and been told, the machine's status, calls that were answered, what the host had heard, and the
    size of the database's files: each commit makes the log longer.
    """

    act: int
    acknowledged: bool
    status: str
    answered: int
    heard: int
    size: int


class Moment(NamedTuple):
    """A point, its place, and what was outside by then; None before there was anything."""

    point: Point
    place: Place
    outside: Outside | None


class Tracer:
    """Sees every moment, and tells `saw` of it."""

    def __init__(self, saw: Callable[[str, int, FrameType, str], None]) -> None:
        self._saw = saw
        self._numbers: Counter[str] = Counter()
        self._one_by_one = threading.Lock()

    def begin(self) -> None:
        """See this thread and all that begin from now on."""
        threading.settrace(self._entered)
        sys.settrace(self._entered)

    def end(self) -> None:
        """See no more."""
        sys.settrace(None)
        threading.settrace(None)  # pyright: ignore[reportArgumentType] - None is what ends it

    def _entered(self, frame: FrameType, event: str, argument: object) -> Any:
        name = frame.f_code.co_filename
        if name not in _FILES and not name.startswith(_MIGRATIONS):
            return None
        return self._happened(frame, event, argument)

    def _happened(self, frame: FrameType, event: str, _argument: object) -> Any:
        kind = event if event == "line" else _kind(frame, event)
        if kind:
            thread = threading.current_thread().name
            role = "main" if thread == "MainThread" else next(each for each in _THREADS if thread.startswith(each))
            with self._one_by_one:
                self._numbers[role] += 1
                self._saw(role, self._numbers[role], frame, kind)
        return self._happened


@functools.cache
def _awaits(code: CodeType) -> frozenset[int]:
    """Return where in a coroutine's code it waits."""
    coroutine = code.co_flags & inspect.CO_COROUTINE
    return frozenset(each.offset for each in dis.get_instructions(code) if coroutine and each.opname == "YIELD_VALUE")


def _kind(frame: FrameType, event: str) -> str:
    if event in {"call", "return"} and frame.f_lasti in _awaits(frame.f_code):
        return "leave" if event == "return" else "come back"
    return ""


def watcher(saw: Callable[[Point, Place], None]) -> Tracer:
    """Return a tracer that tells of each moment."""

    def tell(thread: str, number: int, frame: FrameType, kind: str) -> None:
        saw(Point(thread, number), Place(frame.f_code.co_filename, frame.f_lineno, kind))

    return Tracer(tell)


def killer(point: Point, epitaph: Path) -> Tracer:
    """Return a tracer that kills this process at `point`, after writing down where that was."""

    def kill(thread: str, number: int, frame: FrameType, kind: str) -> None:
        if number == point.number and thread == point.thread:
            epitaph.write_text(str(Place(frame.f_code.co_filename, frame.f_lineno, kind)))
            os.kill(os.getpid(), signal.SIGKILL)

    return Tracer(kill)


def halter(points: Collection[Point], stand: Callable[[str], None]) -> Tracer:
    """Return a tracer that says at each of `points` where that is, and stops this process until it is continued."""

    def halt(thread: str, number: int, frame: FrameType, kind: str) -> None:
        if (thread, number) in points:
            stand(str(Place(frame.f_code.co_filename, frame.f_lineno, kind)))
            # To the process as a whole, another thread could take it, and this one would go on for a moment.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)

    return Tracer(halt)


def lines_of(file: str) -> set[int]:
    """Return every line of a file that runs when one of its functions does."""
    module = compile(Path(file).read_text(), file, "exec")
    return {line for code in _functions(module) for line in _lines(code)}


def _functions(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if each.co_flags & inspect.CO_OPTIMIZED:
                yield each
            yield from _functions(each)


def _lines(code: CodeType) -> Iterator[int]:
    """Yield the lines of a function, without the one of `def` and those of nested ones."""
    for _, _, line in code.co_lines():
        if line is not None and line != code.co_firstlineno:
            yield line
