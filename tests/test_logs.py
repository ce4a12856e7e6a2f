"""What a line of the log may hold, and what it is about."""

import asyncio
import json
import logging
from typing import Any

from comfyweb.logs import LINES_A_MINUTE, LONGEST_LINE, JsonLines, NotTooOften, OneLine, about, current


def record(name: str, message: str, *, created: float = 0.0, exc_info: Any = None) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.ERROR, "", 0, message, None, exc_info)
    made.created = created
    return made


def test_a_record_is_one_line_of_bounded_length() -> None:
    line = OneLine("%(name)s: %(message)s").format(record("reflex", "x\n2026-01-01 FORGED\x1b[31m" + "y" * 9000))
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < LONGEST_LINE + 100


def test_only_our_own_tracebacks_are_printed() -> None:
    trace = (ValueError, ValueError("planted secret"), None)
    printed = OneLine("%(message)s")
    assert "planted secret" not in printed.format(record("reflex.app", "failed", exc_info=trace))
    assert "planted secret" in printed.format(record("comfyweb.ui", "failed", exc_info=trace))


def test_libraries_may_say_so_much_a_minute_and_we_as_much_as_we_want() -> None:
    often = NotTooOften()
    assert sum(often.filter(record("reflex", "x")) for _ in range(1000)) == LINES_A_MINUTE
    assert often.filter(record("reflex", "x", created=61.0))
    assert all(often.filter(record("comfyweb.control", "x")) for _ in range(1000))
    assert sum(often.filter(record("comfyweb.ui.state", "x", created=200.0)) for _ in range(1000)) == LINES_A_MINUTE


FORGED = "x\n2026-01-01 FORGED\x1b[31m\u2028\udcff" + "y" * 9000


def test_in_json_a_record_is_one_object_on_one_line_of_bounded_length() -> None:
    trace = (ValueError, ValueError("planted\n secret"), None)
    line = JsonLines().format(record("comfyweb.control.loop", FORGED, created=1.5, exc_info=trace))
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 3 * LONGEST_LINE
    said = json.loads(line)
    assert said.keys() == {"time", "level", "logger", "message", "trace"}
    assert (said["time"], said["level"]) == ("1970-01-01T00:00:01.500+00:00", "error")
    assert said["logger"] == "comfyweb.control.loop"
    assert "secret" in said["trace"]


def test_in_json_too_only_our_own_tracebacks_are_printed() -> None:
    trace = (ValueError, ValueError("planted secret"), None)
    assert "planted secret" not in JsonLines().format(record("reflex.app", "failed", exc_info=trace))


def test_a_record_says_what_it_is_about_and_an_inner_matter_knows_the_outer() -> None:
    with about(request_id="r-1", intent_id=None):
        with about(intent_id=7):
            inner = json.loads(JsonLines().format(record("comfyweb", "x")))
        outer = json.loads(JsonLines().format(record("comfyweb", "x")))
    assert (inner["request_id"], inner["intent_id"]) == ("r-1", 7)
    assert "intent_id" not in outer
    assert current("request_id") is None


async def test_what_is_done_side_by_side_is_told_apart() -> None:
    async def work(name: str) -> object:
        with about(request_id=name):
            await asyncio.sleep(0)
            return current("request_id")

    assert await asyncio.gather(work("a"), work("b")) == ["a", "b"]
