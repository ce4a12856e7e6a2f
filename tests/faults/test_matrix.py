"""Every fault that Google can send, from the click to its end: the page, the loop, the machine, and docs/faults.md."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from comfyweb.cloud.compute import PERMISSIONS
from comfyweb.demo.faults import KINDS
from comfyweb.machine.model import Phase
from tests.cloudbox import CloudBox
from tests.faults.document import DOCUMENT, document, key, lines_in
from tests.faults.lines import line
from tests.faults.scenarios import SCENARIOS
from tests.faults.stage import Record, Scenario, Wish, play

REMAKE = "make documents"
ON = frozenset({"RUNNING", "PROVISIONING", "STAGING"})


@pytest.fixture(scope="module")
def box() -> Iterator[CloudBox]:
    with CloudBox(manual=True) as made:
        yield made


def cases() -> Iterator[object]:
    """Yield all scenarios; of each kind of fault the first one is in the inner loop."""
    played: set[str] = set()
    for scenario in SCENARIOS:
        kinds = {fault["kind"] for fault in scenario.faults}
        slow = scenario.slow or (bool(kinds) and kinds <= played)
        played |= kinds
        marks = [pytest.mark.slow] if slow else []
        yield pytest.param(scenario, id=f"{scenario.moment}: {scenario.name}", marks=marks)


@pytest.mark.parametrize("scenario", list(cases()))
async def test_a_fault_is_told_dealt_with_and_ends(scenario: Scenario, box: CloudBox, tmp_path: Path) -> None:
    record = await play(scenario, tmp_path, box)
    assert tuple(dict.fromkeys(fault["code"] for fault in record.faults)) == scenario.says
    assert (record.wish, record.phase) == (scenario.wish, scenario.phase)
    assert_money_is_safe(record)
    assert_the_page_is_honest(record)
    told = lines_in(DOCUMENT.read_text("utf-8"))
    assert told.get(key(scenario)) == line(record), REMAKE


def assert_money_is_safe(record: Record) -> None:
    """At most one start took effect, and where the page says that it is off, it is."""
    assert record.starts <= 1
    if record.phase in {Phase.OFF, Phase.MISSING}:
        assert record.status not in ON
    if record.wish is Wish.REFUSED and record.phase is not Phase.READY:
        assert record.status not in ON


def assert_the_page_is_honest(record: Record) -> None:
    """What was refused is said to the end; nothing is promised that is not going on; times lie ahead."""
    fault = record.page["fault"]
    if record.wish is Wish.REFUSED:
        assert fault is not None
        assert not fault["retry"]
    if record.wish is Wish.MET and record.phase in {Phase.READY, Phase.OFF}:
        assert fault is None
    for at, body in record.shown:
        if body["fault"] is not None and body["fault"]["retry_at"]:
            assert body["fault"]["retry_at"] > at.isoformat(timespec="seconds").replace("+00:00", "Z")
            assert body["wanted"]


def test_the_document_has_these_faults_and_all_words() -> None:
    text = DOCUMENT.read_text("utf-8")
    assert text == document(lines_in(text)), REMAKE


def test_no_two_faults_have_one_name() -> None:
    assert len({key(scenario) for scenario in SCENARIOS}) == len(SCENARIOS)


def test_every_fault_of_the_emulator_and_every_permission_is_played() -> None:
    assert {fault["kind"] for scenario in SCENARIOS for fault in scenario.faults} == KINDS
    names = " ".join(scenario.name for scenario in SCENARIOS)
    assert [permission for permission in PERMISSIONS if f"`{permission}`" not in names] == []
