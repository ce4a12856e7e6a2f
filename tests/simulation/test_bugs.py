"""The simulation tested: bugs planted into the app on purpose, each of which must break the invariant named for it."""

from pathlib import Path

import pytest

from tests.simulation.bugs import BUGS, Bug, live, table
from tests.simulation.facts import Broken
from tests.simulation.scenes import Scene

DOCUMENT = Path(__file__).parent.parent.parent / "docs/testing.md"


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.plant.__name__.strip("_"))
def test_a_planted_bug_is_caught_by_its_invariant(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    with pytest.raises(Broken) as caught:
        live(bug.world)
    assert caught.value.name == bug.caught_by


@pytest.mark.slow
@pytest.mark.parametrize(
    "world", {bug.world: None for bug in BUGS}, ids=lambda world: getattr(world, "__name__", world)
)
def test_without_the_bug_the_same_world_holds(world: Scene | int) -> None:
    live(world)


def test_the_list_in_the_documents_is_this_one() -> None:
    assert table() in DOCUMENT.read_text()
