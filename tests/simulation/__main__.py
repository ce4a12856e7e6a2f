"""Tells the story of a world-line: `python -m tests.simulation --seed 7 --hours 24`."""

import argparse
import sys
import time

from tests.simulation.facts import Broken
from tests.simulation.stories import Story


def main() -> int:
    """Run world-lines; print the story of one, or of the first that breaks an invariant."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the world-line, or the first of several")
    parser.add_argument("--count", type=int, default=1, help="how many world-lines to run, one seed after the other")
    parser.add_argument("--hours", type=float, default=24, help="machine hours of each (default 24)")
    options = parser.parse_args()
    began = time.perf_counter()
    for seed in range(options.seed, options.seed + options.count):
        story = Story(seed)
        try:
            story.run(options.hours)
        except Broken as broken:
            _print(*story.simulation.facts.trace[-400:], f"seed {seed}: {broken}")
            return 1
        if options.count == 1:
            _print(*story.simulation.facts.trace)
    took = time.perf_counter() - began
    _print(f"{options.count} × {options.hours:g} hours: all invariants held ({took:.1f} s)")
    return 0


def _print(*lines: str) -> None:
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
