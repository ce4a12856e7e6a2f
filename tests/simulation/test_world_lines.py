"""World-lines from fixed seeds: no invariant breaks in any of them, and each is the same each time."""

import pytest

from tests.simulation.stories import Story


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_no_promise_is_broken_in_some_hours(seed: int) -> None:
    Story(seed).run(hours=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 108))
def test_no_promise_is_broken_in_many_hours(seed: int) -> None:
    Story(seed).run(hours=8)


@pytest.mark.slow
def test_the_same_seed_tells_the_same_story() -> None:
    told: list[list[str]] = []
    for seed in (5, 5, 6):
        story = Story(seed)
        story.run(hours=1)
        told.append(story.simulation.facts.trace)
    assert told[0] == told[1] != told[2]
