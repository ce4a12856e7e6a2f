"""Killed at any line or await of the loop and the ledger, the app goes on as if nothing had happened."""

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.crash.mutants import MUTANTS
from tests.crash.points import THE_LOOP_AND_THE_LEDGER, Moment, lines_of
from tests.crash.stories import STORIES
from tests.crash.trials import Trials, Watched, differences, places, plan, what_is_left

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parent.parent.parent / "docs/testing.md"
AT_ONCE = 2
# Lines that no story reaches, and why none can or need.
NOT_KILLED_AT = {
    'log.warning("the loop ends: %s", error)': "several processes, which run on PostgreSQL: tests/replicas kills them",
    "return": "as above",
    "return await self._server.patiently(self._thread.submit(self._server.anew(work)), seconds)": "as above",
    "await self._in_thread(self._server.answers)": "as above",
    "case Enforce() | None:": "a guard's act has become an intent before anything is done; here for the type checker",
    "pass  # Nothing to call.": "as above",
    "return  # The machine has lost its address since its host answered.": "a race with Google of one turn",
    "db.exec(update(KeyRow).where(false()).values(name=KeyRow.name))": "PostgreSQL, which has no file of ours",
    "return  # Nothing that others could read.": "PostgreSQL, or a database in memory",
    "return None  # Nothing that could be replaced.": "as above",
    "except FileNotFoundError:": "the file is gone: nothing that was stored could survive a kill",
    "return None": "as above",
    "except (ValueError, TypeError, OverflowError) as error:  # from fetching a row: broken JSON, or no time": (
        "a row that somebody else has broken: nothing is written then"
    ),
    "await self._attempts.make(Verb.SEND_COMMANDS, None)": (
        "commands by way of Google are kept in memory: tests/control/test_orders.py has the process after it"
    ),
    "return await self._compute.set_metadata(zone, request_id, self._orders.write())": "as above",
    "return self._messenger.order(order)": "as above",
    "return self._orders.put(order, self._observer.seen, self._clock.now())": "as above",
    "self.order(order)": "as above",
    "return  # It is told by way of Google.": "as above",
    "self.order(orders.revoke(jti))": "as above",
    "continue  # with the next, by way of Google": "as above",
    'raise LedgerError(f"the database holds what can\'t be read: {error}") from error': "as above",
    "raise LedgerError(GONE)": "as above",
    "await self._look_at_permissions()  # It may not be the only one that is missing.": (
        "a look that is refused: nothing is stored, and the page says that nobody knows how the machine is"
    ),
    "self._may_look = False": "as above",
}


@pytest.fixture(scope="session")
def watched() -> Mapping[str, Watched]:
    found: dict[str, Watched] = {}
    for story in STORIES:
        with Trials(story) as trials:
            found[story] = trials.watch()
    return found


@pytest.fixture(scope="session")
def planned(watched: Mapping[str, Watched]) -> Mapping[str, Sequence[Moment]]:
    return plan({story: each.moments for story, each in watched.items()})


def killed_everywhere(trials: Trials, moments: Sequence[Moment], expected: Watched) -> Iterable[str]:
    """Kill at each of these moments; yield what went wrong."""

    def some(first: int) -> list[str]:
        with Trials(trials.story) as others:
            return [
                f"killed at {each.place}: {wrong}"
                for each in left[first::AT_ONCE]
                for wrong in differences(expected.outcome, others.reborn(each))
            ]

    with trials.halted([each.point for each in moments]) as left, ThreadPoolExecutor(AT_ONCE) as pool:
        for found in pool.map(some, range(AT_ONCE)):
            yield from found


@pytest.mark.parametrize("story", STORIES)
def test_a_story_that_nobody_is_killed_in_ends_well(story: str, watched: Mapping[str, Watched]) -> None:
    assert watched[story].outcome.wrong == []


@pytest.mark.parametrize("story", STORIES)
def test_a_story_ends_the_same_wherever_the_app_is_killed(
    story: str, watched: Mapping[str, Watched], planned: Mapping[str, Sequence[Moment]]
) -> None:
    with Trials(story) as trials:
        assert list(killed_everywhere(trials, planned[story], watched[story])) == []


def test_a_process_that_is_killed_leaves_what_is_copied_of_one_that_stands_still(
    planned: Mapping[str, Sequence[Moment]],
) -> None:
    """Where a second thread is at work, so that at each kill the first one is in the same place: it waits."""
    story = "start, work, gentle stop"
    points = [each.point for each in planned[story] if each.point.thread != "main"][::6]
    with Trials(story) as trials:
        with trials.halted(points) as copies:
            copied = {each.place: what_is_left(each) for each in copies}
        killed: dict[str, object] = {}
        for point in points:
            with trials.killed(point) as left:
                killed[left.place] = what_is_left(left)
    assert copied == killed


def test_every_line_and_every_await_of_the_loop_and_the_ledger_is_killed_at(
    watched: Mapping[str, Watched], planned: Mapping[str, Sequence[Moment]]
) -> None:
    killed = {moment.place for story in planned.values() for moment in story}
    reached = set[object]().union(*(places(each.moments) for each in watched.values()))
    assert reached <= killed
    left: set[str] = set()
    for file in THE_LOOP_AND_THE_LEDGER:
        text = Path(file).read_text().splitlines()
        lines = {place.line for place in killed if place.file == file and place.kind == "line"}
        left |= {text[line - 1].strip() for line in lines_of(file) - lines}
    assert left == NOT_KILLED_AT.keys()


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_loop_or_ledger_that_is_broken_is_found_out(mutant: str) -> None:
    """Not that much is found but that anything is: the first kill that shows it ends the test."""
    story = MUTANTS[mutant][0]
    with Trials(story, mutant) as trials:
        whole = trials.watch()
        moments = plan({story: whole.moments}, all_places=False)[story]
        with trials.halted([each.point for each in moments]) as left:
            assert any(differences(whole.outcome, trials.reborn(each)) for each in left)


def test_the_document_tells_the_numbers(
    watched: Mapping[str, Watched], planned: Mapping[str, Sequence[Moment]]
) -> None:
    killed = {moment.place for story in planned.values() for moment in story}
    ours = [place for place in killed if place.file in THE_LOOP_AND_THE_LEDGER]
    numbers = {
        "moments": sum(len(each.moments) for each in watched.values()),
        "lines": sum(place.kind == "line" for place in ours),
        "sides of awaits": sum(place.kind != "line" for place in ours),
        "kills": sum(len(each) for each in planned.values()),
    }
    text = DOCUMENT.read_text()
    for name, number in numbers.items():
        [written] = re.findall(rf"(\d[\d ]*) {name}\b", text)
        said = int(written.replace(" ", ""))
        assert said <= number * 1.05, f"docs/testing.md promises {said} {name}; they are {number}"
        assert said >= number * 0.8, f"docs/testing.md may promise more {name} than {said}: they are {number}"
