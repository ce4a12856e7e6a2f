"""Powering off: politely, and by force when something won't let go."""

from pathlib import Path

from vm_setup.host.power import COMMANDS, FORCED, FORCING_UNIT, POLITE, due

UNITS = Path(__file__).parents[2] / "vm_setup/units"


def test_it_is_polite_at_once_and_forceful_after_two_minutes_and_again_every_minute() -> None:
    assert due(since=100, last=None, now=100) == POLITE
    assert due(since=100, last=100, now=219) is None
    assert due(since=100, last=100, now=220) == FORCED
    assert due(since=100, last=220, now=279) is None
    assert due(since=100, last=220, now=280) == FORCED


def test_the_unit_that_forces_it_is_there_and_outlives_the_shutdown() -> None:
    assert any(FORCING_UNIT in argv for argv in COMMANDS[POLITE])
    unit = (UNITS / FORCING_UNIT).read_text()
    assert "DefaultDependencies=no" in unit
    assert unit.index("--no-block poweroff") < unit.index("sleep 120") < unit.index("poweroff -ff")
    assert COMMANDS[FORCED][-1] == ("systemctl", "poweroff", "-ff")
