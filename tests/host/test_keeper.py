"""The keeper as a whole, on real sockets: it stops the machine in time, and nothing that goes wrong around it does."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.demo.standin_machine import APP
from tests.host.keeping import Keeping, keeping
from tests.host.surroundings import change, has, until
from vm_setup.base.comfyui import Probe
from vm_setup.keeper import words

pytestmark = pytest.mark.slow

POLITE = ["systemctl start --no-block comfyweb-poweroff.service", "systemctl --no-block poweroff"]
GARBAGE = [b"", b"{", b"[]", b"null", b"<html>no</html>", b"\xff\xfe\x00", b'{"a":' * 5000, b" " * 2_000_000, b"NaN"]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeping]:
    with keeping(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def ready(machine: Keeping) -> Keeping:
    machine.start()
    until(lambda: machine.status().get("phase") == "ready" and (machine.run / "app-origin").exists())
    return machine


def test_it_powers_off_at_its_time_once_and_by_force_after_two_minutes(ready: Keeping) -> None:
    ready.clocks.pass_(1795)
    ready.settled()
    assert not ready.programs.called
    ready.clocks.pass_(10)
    until(lambda: len(ready.programs.called) == 2)
    assert ready.programs.called == POLITE
    assert ready.status()["phase"] == "stopping"
    ready.clocks.pass_(115)
    ready.settled()
    assert ready.programs.called == POLITE
    ready.clocks.pass_(10)
    until(lambda: len(ready.programs.called) == 4)
    assert ready.programs.called[2:] == ["sync", "systemctl poweroff -ff"]


def test_a_restarted_keeper_goes_on_powering_off(ready: Keeping) -> None:
    ready.clocks.pass_(1805)
    until(lambda: len(ready.programs.called) == 2)
    until(lambda: ready.saved["pushed"])
    ready.stop()
    ready.start()
    ready.clocks.pass_(125)
    until(lambda: "systemctl poweroff -ff" in ready.programs.called)
    assert ready.programs.called[:2] == POLITE


@pytest.mark.parametrize("jump", [-1e8, 1e8])
def test_a_wall_clock_that_jumps_stops_nothing_and_delays_nothing(ready: Keeping, jump: float) -> None:
    ready.clocks.wall += jump
    ready.settled()
    assert not ready.programs.called
    ready.clocks.boot += 1805
    until(lambda: ready.programs.called == POLITE)


def test_a_job_keeps_it_on(ready: Keeping) -> None:
    has(ready.comfyui, running=1)
    until(lambda: ready.status()["activity"]["stops_at"] is None)
    ready.clocks.pass_(5000)
    ready.settled()
    assert not ready.programs.called
    has(ready.comfyui, running=0)
    until(lambda: ready.status()["activity"]["stops_at"])
    ready.clocks.pass_(1805)
    until(lambda: ready.programs.called == POLITE)


def test_a_prompt_that_came_since_the_last_look_is_seen_before_the_power_goes(machine: Keeping) -> None:
    machine.look_every = 1000
    machine.start()
    until(lambda: machine.saved.get("ready_at"))
    has(machine.comfyui, running=1)
    machine.clocks.pass_(1805)
    until(lambda: machine.saved["idle"]["busy"])
    assert not machine.programs.called
    assert not machine.saved["stopping"]


def test_gets_and_an_open_page_keep_nothing_on_and_real_input_does(ready: Keeping) -> None:
    ready.clocks.pass_(1700)
    ready.call("GET", "/_host/health")
    ready.status()
    assert ready.status()["activity"]["kind"] == "ready"
    assert ready.call("POST", "/_host/activity", token="")[0] == 204
    assert ready.status()["activity"]["kind"] == "input"
    ready.clocks.pass_(1700)
    ready.settled()
    assert not ready.programs.called
    ready.clocks.pass_(110)
    until(lambda: ready.programs.called == POLITE)


def test_a_machine_that_was_suspended_is_in_use_when_it_wakes(ready: Keeping) -> None:
    ready.slept = 7200.0
    until(lambda: ready.status()["activity"]["kind"] == "resume")
    assert not ready.programs.called


def test_its_memory_outlives_it_and_time_goes_on_without_it(ready: Keeping) -> None:
    until(lambda: ready.saved.get("ready_at"))
    ready.stop()
    ready.clocks.pass_(1000)
    ready.start()
    until(lambda: ready.status().get("phase") == "ready")
    assert ready.status()["activity"]["kind"] == "ready"
    ready.clocks.pass_(805)
    until(lambda: ready.programs.called == POLITE)


@pytest.mark.parametrize("content", GARBAGE)
def test_a_spoilt_memory_is_a_first_start(machine: Keeping, content: bytes) -> None:
    machine.write("keeper.json", content)
    machine.start()
    until(lambda: machine.status().get("phase") == "ready")
    machine.clocks.pass_(1805)
    until(lambda: machine.programs.called == POLITE)


@pytest.mark.parametrize("content", GARBAGE)
def test_garbage_in_the_files_of_others_is_nothing_said(ready: Keeping, content: bytes) -> None:
    for name in ("steps.json", "holds/install.json", "holds/\udcff\n.json"):
        ready.write(name, content)
    ready.settled()
    status = ready.status()
    assert [step["name"] for step in status["steps"]] == ["comfyui"]
    assert status["activity"]["holds"] == []
    ready.clocks.pass_(1805)
    until(lambda: ready.programs.called == POLITE)


def test_steps_warnings_and_holds_of_others_are_told_and_kept(ready: Keeping) -> None:
    now = ready.clocks.now().boot
    step = {"name": "disk", "state": "running", "began": now - 5, "expected_seconds": 9, "detail": "Checking"}
    ready.write("steps.json", json.dumps({"steps": [step], "warnings": ["No data disk."]}))
    ready.write("holds/install.json", json.dumps({"until": now + 3000}))
    until(lambda: ready.status()["activity"]["holds"])
    status = ready.status()
    assert status["steps"][0]["seconds"] >= 5
    assert "No data disk." in status["warnings"]
    assert status["activity"]["holds"][0]["name"] == "install"
    ready.clocks.pass_(1900)
    ready.settled()
    assert not ready.programs.called
    told = until(lambda: [one for one in ready.metadata.put.get("phase", []) if one["steps"][0]["name"] == "disk"])
    assert told[-1]["warnings"]


@pytest.mark.parametrize("mode", ["html", "error", "truncated"])
def test_a_comfyui_that_talks_nonsense_keeps_nothing_on(ready: Keeping, mode: str) -> None:
    ready.comfyui.mode = mode
    until(lambda: ready.status()["comfyui"]["queue_running"] is None)
    ready.clocks.pass_(1805)
    until(lambda: POLITE[1] in ready.programs.called)


def test_a_comfyui_that_hangs_is_restarted_once_and_that_is_told(ready: Keeping) -> None:
    ready.surveyed()
    ready.comfyui.mode = "error"
    until(lambda: ready.status()["comfyui"]["queue_running"] is None)
    ready.clocks.pass_(100)
    ready.surveyed()
    ready.clocks.pass_(85)
    restart = "systemctl --no-block restart comfyui.service"
    until(lambda: ready.programs.called == [restart])
    for _ in range(5):
        ready.clocks.pass_(100)
        ready.surveyed()
    assert ready.programs.called == [restart]
    assert any("restarted" in warning for warning in ready.status()["warnings"])


def test_a_comfyui_that_falls_silent_with_a_job_is_neither_stopped_nor_restarted(ready: Keeping) -> None:
    has(ready.comfyui, running=1)
    until(lambda: ready.status()["activity"]["stops_at"] is None)
    ready.comfyui.mode = "error"
    until(lambda: ready.status()["comfyui"]["queue_running"] is None)
    for _ in range(8):
        ready.clocks.pass_(100)
        ready.surveyed()
    assert not ready.programs.called
    assert any("count as running" in warning for warning in ready.status()["warnings"])


@pytest.mark.parametrize("mode", ["html", "error", "truncated"])
def test_a_metadata_server_that_talks_nonsense_changes_no_setting(ready: Keeping, mode: str) -> None:
    change(ready.metadata, comfyweb_idle_minutes="60")
    until(lambda: ready.saved["limit"] == 3600)
    ready.metadata.mode = mode
    change(ready.metadata, comfyweb_idle_minutes="1")
    ready.settled()
    assert ready.saved["limit"] == 3600
    ready.metadata.mode = "ok"
    change(ready.metadata, comfyweb_idle_minutes="45")
    until(lambda: ready.saved["limit"] == 2700)


def test_without_a_metadata_server_it_knows_the_limit_of_the_last_boot_and_says_so(machine: Keeping) -> None:
    kept = machine.root / "var/lib/comfyweb/metadata-last-good.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"attributes": {"comfyweb-idle-minutes": "10"}}))
    machine.metadata.mode = "hang"
    machine.start()
    until(lambda: machine.status().get("phase") == "ready")
    machine.clocks.pass_(305)
    until(lambda: words.NO_METADATA in machine.status()["warnings"])
    machine.clocks.pass_(300)
    until(lambda: machine.programs.called == POLITE)


def test_commands_in_metadata_are_obeyed_once_and_acknowledged(ready: Keeping) -> None:
    command = ready.app.command("POST", "/_host/extend", {"minutes": 60}, jti="extend-1")
    forged = f"{ready.app.command('POST', '/_host/extend', {'minutes': 600})[:-4]}AAAA"
    change(ready.metadata, comfyweb_command=json.dumps([forged, command]))
    until(lambda: ready.status()["activity"]["holds"])
    ready.clocks.pass_(6)
    until(lambda: any("extend-1" in beat["acks"] for beat in ready.metadata.put["heartbeat"]))
    stops_at = ready.status()["activity"]["stops_at"][:16]
    ready.stop()
    ready.start()
    until(lambda: ready.status().get("phase") == "ready")
    change(ready.metadata, comfyweb_command=json.dumps([command]), other="1")
    ready.settled()
    assert ready.status()["activity"]["stops_at"][:16] == stops_at


def test_what_could_not_be_written_as_a_guest_attribute_is_written_again(machine: Keeping) -> None:
    machine.metadata.mode = "error"
    machine.start()
    until(lambda: machine.metadata.put.get("phase") and machine.metadata.put.get("heartbeat"))
    machine.metadata.mode = "ok"
    counts = {name: len(machine.metadata.put[name]) for name in ("phase", "heartbeat")}
    machine.clocks.pass_(6)
    until(lambda: all(len(machine.metadata.put[name]) > count for name, count in counts.items()))


def test_a_metadata_server_that_hangs_delays_no_round(machine: Keeping) -> None:
    machine.metadata.mode = "hang"
    machine.start()
    until(lambda: machine.status().get("phase") == "ready")
    machine.clocks.pass_(1805)
    until(lambda: machine.programs.called == POLITE)


def test_a_driver_that_hangs_delays_nothing_and_is_told(machine: Keeping) -> None:
    machine.programs.slow_card()
    machine.start()
    until(lambda: machine.status().get("phase") == "ready")
    assert machine.status()["warnings"] == []
    machine.clocks.pass_(125)
    until(lambda: words.NO_CARD in machine.status()["warnings"])


def test_the_card_is_told(ready: Keeping) -> None:
    until(lambda: ready.status()["gpu"]["name"])
    assert ready.status()["gpu"] == {"name": "Tesla T4", "memory_used_mib": 1210, "memory_total_mib": 15360}


@pytest.mark.parametrize("line", ["", "No devices were found", "a,b", "T4, [N/A], [N/A], [N/A]"])
def test_a_card_that_can_not_be_read_is_no_trouble(machine: Keeping, line: str) -> None:
    machine.programs.card(line)
    machine.start()
    until(lambda: machine.status().get("phase") == "ready" and machine.status()["disk"]["total_bytes"])
    assert machine.status()["gpu"]["memory_used_mib"] is None


def test_a_port_that_somebody_else_has_does_not_keep_the_machine_on(machine: Keeping) -> None:
    with socket.create_server(("127.0.0.1", machine.port)):
        machine.start()
        until(lambda: machine.saved.get("ready_at"))
        machine.clocks.pass_(1805)
        until(lambda: machine.programs.called == POLITE)


def test_the_extension_is_told_the_apps_origin(ready: Keeping) -> None:
    assert (ready.run / "app-origin").read_text() == APP


def drain(ear: socket.socket) -> list[bytes]:
    """Return all that has been said up to now."""
    heard: list[bytes] = []
    while True:
        try:
            heard.append(ear.recv(4096))
        except BlockingIOError:
            return heard


def test_systemd_hears_that_all_is_well_and_why_the_machine_is_on(
    machine: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        machine.start()
        heard = [ear.recv(4096).decode() for _ in range(30)]
    assert "READY=1" in heard
    alive = [words_ for words_ in heard if words_.startswith("WATCHDOG=1")]
    assert "\nSTATUS=On: last use (" in alive[-1]


def test_systemd_hears_nothing_when_comfyui_can_not_be_looked_at_any_more(
    machine: Keeping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(_: Probe) -> None:
        machine.comfyui.over.wait(20)

    monkeypatch.setattr(Probe, "look", stuck)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        machine.start()
        until(lambda: machine.saved.get("at"))
        machine.clocks.pass_(25)
        before = machine.saved["at"] + 25
        until(lambda: machine.saved["at"] > before + 0.1)
        ear.setblocking(False)  # noqa: FBT003 - its only name
        heard = drain(ear)
        before = machine.saved["at"]
        until(lambda: machine.saved["at"] > before + 0.1)
        assert heard
        assert drain(ear) == []
