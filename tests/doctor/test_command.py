"""The command as people run it: what it prints and with which code it ends."""

import json
from pathlib import Path

import pytest

from tests.cloudbox import CloudBox
from tests.launching import REQUIRED, Program

pytestmark = pytest.mark.slow


def environ(box: CloudBox, folder: Path) -> dict[str, str]:
    return REQUIRED | {"COMPUTE_ENDPOINT": box.url, "DATABASE_URL": f"sqlite:///{folder / 'c.db'}"}


def test_in_health_it_ends_with_0_and_says_so_in_plain_lines(tmp_path: Path) -> None:
    with CloudBox() as box, Program("-m", "comfyweb", "doctor", environ=environ(box, tmp_path)) as doctor:
        assert doctor.ended() == 0
    assert "ok      machine: comfyui-gpu in us-central1-a, n1-standard-4, TERMINATED" in doctor.lines
    assert doctor.lines[-1].endswith("0 failed, 2 not checked")
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"


def test_for_programs_it_prints_json_and_ends_with_1_when_something_failed(tmp_path: Path) -> None:
    with CloudBox() as box:
        box.fault("permission", verb="start", times=None)
        with Program("-m", "comfyweb", "doctor", "--json", environ=environ(box, tmp_path)) as doctor:
            assert doctor.ended() == 1
    told = json.loads("\n".join(doctor.lines))
    assert told["ok"] is False
    [failed] = [finding for finding in told["findings"] if finding["state"] == "failed"]
    assert failed["check"] == "permission compute.instances.start"
    assert failed["todo"]


def test_a_dead_cloud_does_not_keep_it_from_ending(tmp_path: Path) -> None:
    with CloudBox() as box:
        box.fault("hang", times=None)
        with Program("-m", "comfyweb", "doctor", environ=environ(box, tmp_path)) as doctor:
            assert doctor.ended() == 1
    assert any(line.startswith("FAILED  compute-engine-api") for line in doctor.lines)


def test_without_settings_it_names_each_that_is_missing() -> None:
    with Program("-m", "comfyweb", "doctor", environ={}) as doctor:
        assert doctor.ended() == 1
    assert sum(line.startswith("FAILED  settings: ") for line in doctor.lines) == 3
