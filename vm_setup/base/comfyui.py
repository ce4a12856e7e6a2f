"""Looking at ComfyUI: how many prompts run and wait, which are over, which version it is.

`/queue` carries every workflow that waits, so it can be long; `/prompt` then tells the number alone. `/api/jobs`
tells of jobs that began and ended between two looks; ComfyUI copies its whole history for it, so it is asked less
often. Seen with ComfyUI 0.33.0. How far a running prompt is, our own extension tells.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from vm_setup.base.asking import Answer, AskError, AskRefusedError, AskTooLongError, Request, ask
from vm_setup.host.boot import one_line
from vm_setup.host.messages import Current
from vm_setup.host.reading import items, json_value, mapping, number, word

ADDRESS = "http://127.0.0.1:8188"
PROBE_SECONDS = 2.0
_OK = 200
_LIMIT = 2_000_000
_JOBS_EVERY = 5
_WORD_LIMIT = 100
_CURRENT = "/comfyweb/current"
_JOBS = "/api/jobs?limit=10"


class Reached(str, Enum):
    """How a look at ComfyUI ended. `REFUSED`: nobody listens, so that what ran there runs no more."""

    ANSWERED = "answered"
    SILENT = "silent"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at ComfyUI, which `began` then. `ended` names the newest jobs that are over; None when not asked.

    `why` it didn't answer is for the log.
    """

    began: float
    reached: Reached
    running: int | None = None
    pending: int | None = None
    version: str = ""
    ended: Sequence[str] | None = None
    current: Current | None = None
    why: str = ""

    @property
    def jobs(self) -> int | None:
        """Prompts that run or wait; None when that is unknown."""
        return None if self.running is None or self.pending is None else self.running + self.pending


class Probe:
    """Looks at the ComfyUI at `address`; `now` is the clock that never jumps."""

    def __init__(self, address: str, *, now: Callable[[], float], seconds: float = PROBE_SECONDS) -> None:
        self._address = address
        self._now = now
        self._seconds = seconds
        self._version = ""
        self._looks = 0
        self._last = Reached.REFUSED

    def look(self) -> Look:
        """Look once. Never raises: what doesn't answer in time, or nonsense, is silent."""
        began = self._now()
        try:
            running, pending = self._queue()
        except AskRefusedError:
            self._version = ""
            return self._seen(Look(began=began, reached=Reached.REFUSED, why="nobody listens"))
        except (AskError, ValueError) as error:
            return self._seen(Look(began=began, reached=Reached.SILENT, why=str(error)))
        ended = self._ended() if self._looks % _JOBS_EVERY == 0 or self._last is not Reached.ANSWERED else None
        self._looks += 1
        self._version = self._version or self._asked_version()
        look = Look(
            began=began,
            reached=Reached.ANSWERED,
            running=running,
            pending=pending,
            version=self._version,
            ended=ended,
            current=self._current() if running else None,
        )
        return self._seen(look)

    def _queue(self) -> tuple[int, int]:
        """Return how many prompts run and wait. Raises AskError, and ValueError for nonsense."""
        try:
            queue = self._object("/queue")
        except AskTooLongError:
            info = mapping(self._object("/prompt").get("exec_info")) or {}
            remaining = number(info.get("queue_remaining"))
            if remaining is None or remaining < 0:
                raise ValueError("it doesn't say how many prompts it has") from None
            return min(1, int(remaining)), max(0, int(remaining) - 1)
        running, pending = items(queue.get("queue_running")), items(queue.get("queue_pending"))
        if running is None or pending is None:
            raise ValueError("it doesn't say what its queue holds")
        return len(running), len(pending)

    def _ended(self) -> list[str] | None:
        """Name the newest jobs that are over; None when it can't tell. One that is run again gets a new name."""
        try:
            jobs = items(self._object(_JOBS).get("jobs")) or []
        except (AskError, ValueError):
            return None
        found: list[str] = []
        for job in map(mapping, jobs):
            end = number(job.get("execution_end_time")) if job else None
            name = word(job.get("id"), limit=_WORD_LIMIT) if job else None
            if name and end is not None:
                found.append(f"{name}@{end:.0f}")
        return found

    def _current(self) -> Current | None:
        """Return what runs now; None when nobody can tell."""
        try:
            found = self._object(_CURRENT)
        except (AskError, ValueError):
            return None
        # A node's class may be named in any way: "KSampler (Efficient)".
        prompt_id, node = word(found.get("prompt_id"), limit=_WORD_LIMIT), one_line(found.get("node"))[:_WORD_LIMIT]
        percent = number(found.get("percent"))
        if not prompt_id or not node or percent is None:
            return None
        return Current(prompt_id=prompt_id, node=node, percent=min(max(percent, 0.0), 100.0))

    def _asked_version(self) -> str:
        try:
            system = mapping(self._object("/system_stats").get("system")) or {}
        except (AskError, ValueError):
            return ""
        return word(system.get("comfyui_version"), limit=_WORD_LIMIT) or ""

    def _object(self, path: str) -> dict[str, object]:
        answer: Answer = ask(self._address, Request(path=path, seconds=self._seconds, limit=_LIMIT))
        if answer.status != _OK:
            raise ValueError(f"{path}: status {answer.status}")
        found = mapping(json_value(answer.body, limit=_LIMIT))
        if found is None:
            raise ValueError(f"{path}: no JSON object")
        return found

    def _seen(self, look: Look) -> Look:
        self._last = look.reached
        return look
