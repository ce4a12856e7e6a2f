"""How the log is written: as text for people, or as one JSON object a line; and what a record is about.

A line never holds more than its own: whoever a stranger is, what he sends can't begin a line, nor make one long.
"""

import contextlib
import json
import logging
from collections.abc import Generator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final

TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
LONGEST_LINE: Final = 2000
LINES_A_MINUTE: Final = 30
CAUSED_BY_STRANGERS: Final = frozenset(
    {"comfyweb.ui.state", "comfyweb.ui.door", "comfyweb.api.frame", "comfyweb.api.events"}
)
OURS: Final = "comfyweb"
# Granian's own loggers write to their own place, in their own form, unless they are told.
GRANIAN: Final[dict[str, Any]] = {
    "loggers": {name: {"handlers": [], "propagate": True} for name in ("_granian", "granian.access")}
}

_about: ContextVar[Mapping[str, str | int]] = ContextVar("about", default={})  # noqa: B039 - nobody changes it


@contextlib.contextmanager
def about(**what: str | int | None) -> Generator[None]:
    """Say what the records made within are about, also by tasks that are begun there. None says nothing.

    Used are `request_id`, `intent_id` and `attempt_request_id`, which Compute Engine has as `clientOperationId`.
    """
    known = {name: value for name, value in what.items() if value is not None}
    before = _about.set({**_about.get(), **known})
    try:
        yield
    finally:
        _about.reset(before)


def current(name: str) -> str | int | None:
    """Return what is said here of what records are about."""
    return _about.get().get(name)


class OneLine(logging.Formatter):
    """A record is one line of bounded length, whatever a stranger managed to put into it.

    Only our own modules' tracebacks are printed, each below its line and bounded too.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Escape what could begin a line or move a terminal's cursor."""
        shown = logging.makeLogRecord({**record.__dict__, "exc_info": None, "exc_text": None, "stack_info": None})
        line = _escaped(super().format(shown)[:LONGEST_LINE])
        trace = _trace(self, record)
        return f"{line}\n{trace}" if trace else line


class JsonLines(logging.Formatter):
    """A record is one JSON object: time (RFC 3339, UTC), level, logger, message, what it is about, our traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Write it. JSON itself escapes line ends; what else moves a cursor is escaped as in text."""
        said: dict[str, str | int] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _escaped(record.getMessage()[:LONGEST_LINE]),
            **_about.get(),
        }
        if trace := _trace(self, record):
            said["trace"] = trace
        return json.dumps(said)


class NotTooOften(logging.Filter):
    """Lets the libraries, and ours who tell of failed requests, say so much a minute: strangers cause it."""

    def __init__(self) -> None:
        super().__init__()
        self._minute, self._said = 0, 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to print it. What else is our own is never held back."""
        if _own(record) and record.name not in CAUSED_BY_STRANGERS:
            return True
        minute = int(record.created // 60)
        self._said = self._said + 1 if minute == self._minute else 1
        self._minute = minute
        return self._said <= LINES_A_MINUTE


def write_as(form: str) -> None:
    """Write this process's log, and that of the processes that it forks, to stderr: `text` or `json`."""
    printed = logging.StreamHandler()
    printed.setFormatter(JsonLines() if form == "json" else OneLine(TEXT))
    printed.addFilter(NotTooOften())
    logging.basicConfig(level=logging.WARNING, handlers=[printed], force=True)
    logging.captureWarnings(capture=True)
    for name in ("engineio.server", "socketio.server"):  # Without a level they make a handler of their own.
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger(OURS).setLevel(logging.INFO)


def _own(record: logging.LogRecord) -> bool:
    return record.name.split(".")[0] == OURS


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    found = record.exc_info if _own(record) else None
    return formatter.formatException(found)[-LONGEST_LINE:] if found and found[0] else ""


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
