"""The dead-man switch as a program: one look at the keeper, at ComfyUI and at the holds, and what it then does."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host.keeping import Keeping, keeping
from tests.host.surroundings import has, load, until
from vm_setup.base import files
from vm_setup.keeper.deadman import look

POLITE = ["systemctl start --no-block comfyweb-poweroff.service", "systemctl --no-block poweroff"]
HOUR = 3600.0


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeping]:
    with keeping(tmp_path, monkeypatch) as made:
        yield made


def died(machine: Keeping, *, used: float = 100, **idle: Any) -> None:
    """Let the keeper have written its file for the last time just now."""
    now = machine.clocks.now().boot
    said = {"at": now, "limit": 1800, "idle": {"used": now - used, **idle}}
    machine.write("keeper.json", json.dumps(said))


def test_while_the_keeper_keeps_it_does_nothing(machine: Keeping) -> None:
    machine.clocks.pass_(10 * HOUR)
    died(machine, used=9 * HOUR)
    assert not look(machine.world)
    assert not machine.programs.called


def test_with_a_dead_keeper_it_powers_off_after_the_limit_and_some(machine: Keeping) -> None:
    died(machine)
    machine.clocks.pass_(2290)
    assert not look(machine.world)
    machine.clocks.pass_(20)
    assert look(machine.world)
    assert machine.programs.called == POLITE


def test_with_a_keeper_that_never_ran_the_time_counts_from_its_first_look(machine: Keeping) -> None:
    assert not look(machine.world)
    machine.clocks.pass_(2395)
    assert not look(machine.world)
    machine.clocks.pass_(10)
    assert look(machine.world)


def test_it_knows_the_limit_of_an_earlier_boot_when_the_keeper_never_ran(machine: Keeping) -> None:
    kept = machine.root / "var/lib/comfyweb/metadata-last-good.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"attributes": {"comfyweb-idle-minutes": "2"}}))
    assert not look(machine.world)
    machine.clocks.pass_(235)
    assert not look(machine.world)
    machine.clocks.pass_(10)
    assert look(machine.world)


def test_it_forces_what_does_not_help(machine: Keeping) -> None:
    died(machine)
    machine.clocks.pass_(2310)
    for _ in range(4):
        look(machine.world)
        machine.clocks.pass_(60)
    assert machine.programs.called == [*POLITE, "sync", "systemctl poweroff -ff", "sync", "systemctl poweroff -ff"]


def test_it_stops_no_job_and_waits_again_afterwards(machine: Keeping) -> None:
    died(machine)
    has(machine.comfyui, running=1)
    machine.clocks.pass_(5 * HOUR)
    assert not look(machine.world)
    has(machine.comfyui, running=0)
    machine.clocks.pass_(2395)
    assert not look(machine.world)
    machine.clocks.pass_(10)
    assert look(machine.world)


@pytest.mark.parametrize("mode", ["html", "error", "truncated"])
def test_a_comfyui_that_talks_nonsense_keeps_it_on_only_if_it_had_jobs(machine: Keeping, mode: str) -> None:
    now = machine.clocks.now().boot
    died(machine, busy=True, seen=now)
    machine.comfyui.mode = mode
    machine.clocks.pass_(2500)
    assert not look(machine.world)
    machine.clocks.pass_(HOUR - 2500 + 10)
    assert look(machine.world)


def test_holds_keep_it_on(machine: Keeping) -> None:
    died(machine)
    machine.write("holds/install.json", json.dumps({"until": machine.clocks.now().boot + 3 * HOUR}))
    machine.clocks.pass_(3 * HOUR - 10)
    assert not look(machine.world)
    machine.clocks.pass_(20)
    assert look(machine.world)


def test_a_keeper_that_can_not_write_but_answers_is_alive(machine: Keeping, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    machine.start()
    until(lambda: machine.status().get("phase") == "ready")
    has(machine.comfyui, running=1)
    until(lambda: machine.saved["idle"]["busy"])
    monkeypatch.setattr(files, "write", full)
    machine.clocks.pass_(HOUR)
    until(lambda: any("can't write" in warning for warning in machine.status()["warnings"]))
    has(machine.comfyui, running=0)
    until(lambda: machine.status()["comfyui"]["queue_running"] == 0)
    assert not look(machine.world)
    assert not machine.programs.called


@pytest.mark.parametrize("content", [b"", b"{", b"<html>", b"\xff", b"[]", b'{"at": "x", "idle": [], "limit": -1}'])
def test_spoilt_files_are_as_good_as_none(machine: Keeping, content: bytes) -> None:
    machine.write("keeper.json", content)
    machine.write("deadman.json", content)
    machine.write("holds/install.json", content)
    assert not look(machine.world)
    assert load(machine.run / "deadman.json")["since"] > 0
    machine.clocks.pass_(2405)
    assert look(machine.world)
