"""Time in the emulated Compute Engine: told from outside, with all that is due until then done in order."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from comfyweb.demo.model import SYSTEM, Operation, OperationError, Resource, Times
from comfyweb.demo.register import Register

Apply = Callable[[], OperationError | None]
"""A change; what it returns is the error of its operation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    """A change that needs a moment."""

    at: datetime
    operation: Operation
    apply: Apply


class Timeline:
    """The time that was told last, and the changes that lie ahead."""

    def __init__(self, *, now: datetime, times: Times, register: Register) -> None:
        self.now = now
        self.began = now
        self.times = times
        self.register = register
        self._edits: list[_Edit] = []

    def advance(self, now: datetime) -> None:
        """Do all that is due until `now`, each at its own time. A clock that went backwards stands still here."""
        while (due := min(self.due(), key=lambda each: each[0], default=None)) and due[0] <= now:
            self.now = max(self.now, due[0])
            due[1]()
        self.now = max(self.now, now)

    def due(self) -> Iterable[tuple[datetime, Callable[[], None]]]:
        """List what lies ahead, each with its time."""
        for edit in self._edits:
            yield edit.at, lambda edit=edit: self._apply(edit)

    def _apply(self, edit: _Edit) -> None:
        self._edits.remove(edit)
        edit.operation.end(edit.at, edit.apply())

    def open(self, kind: str, target: Resource, user: str) -> Operation:
        """Open an operation that somebody asked for."""
        return self.register.open(kind, target, user, now=self.now, started_at=self.now + self.times.pending)

    def by_itself(self, kind: str, target: Resource) -> Operation:
        """Open an operation that nobody asked for."""
        return self.register.open(kind, target, SYSTEM, now=self.now, started_at=self.now)

    def edit(self, operation: Operation, apply: Apply) -> Operation:
        """Let the operation make its change in a moment."""
        self._edits.append(_Edit(at=operation.inserted_at + self.times.edit, operation=operation, apply=apply))
        return operation


def nothing() -> None:
    """Change nothing: the operation succeeds."""
