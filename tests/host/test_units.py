"""The keeper's units: it is never left dead, and its dead-man switch needs nothing of it."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vm_setup.base.places import PORT

UNITS = Path(__file__).parents[2] / "vm_setup/units"
PROGRAM = "/usr/bin/python3 /opt/comfyweb/current/comfyweb.pyz"


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # pyright: ignore[reportAttributeAccessIssue] - as configparser's documentation says
    parser.read_string((UNITS / name).read_text())
    return parser


def test_the_keeper_is_started_again_for_ever_and_watched() -> None:
    keeper = unit("comfyweb-keeper.service")
    assert keeper["Service"]["ExecStart"] == f"{PROGRAM} keeper"
    assert keeper["Unit"]["StartLimitIntervalSec"] == "0"
    assert (keeper["Service"]["Restart"], keeper["Service"]["RestartSec"]) == ("always", "1")
    assert (keeper["Service"]["Type"], keeper["Service"]["WatchdogSec"]) == ("notify", "30")
    assert "After" not in keeper["Unit"]
    assert "Requires" not in keeper["Unit"]


def test_its_port_is_not_comfyuis_to_take() -> None:
    comfyui = unit("comfyui.service")["Service"]
    assert PORT < 1024
    assert (comfyui["CapabilityBoundingSet"], comfyui["AmbientCapabilities"]) == ("", "")


def test_what_it_knows_outlives_it_but_not_the_boot() -> None:
    service = unit("comfyweb-keeper.service")["Service"]
    assert (service["RuntimeDirectory"], service["RuntimeDirectoryPreserve"]) == ("comfyweb", "yes")


def test_the_dead_man_switch_looks_every_minute_and_never_hangs() -> None:
    timer, service = unit("comfyweb-deadman.timer"), unit("comfyweb-deadman.service")
    assert timer["Timer"]["OnUnitInactiveSec"] == timer["Timer"]["OnBootSec"] == "60"
    assert timer["Install"]["WantedBy"] == "timers.target"
    assert service["Service"]["ExecStart"] == f"{PROGRAM.replace('current', 'good')} deadman"
    assert service["Service"]["TimeoutStartSec"] == "90"


def test_what_comfyui_can_not_be_without_is_reloaded_and_never_restarted_under_it() -> None:
    for name in unit("comfyui.service")["Unit"]["Requires"].split():
        service = unit(name)["Service"]
        assert service["ExecReload"] == service["ExecStart"], name


@pytest.mark.parametrize(
    ("restarts", "ran_seconds", "waits"),
    [(0, 0, [0]), (1, 3, [1]), (3, 599, [7]), (50, 20, [63]), (50, 601, ["reset-failed comfyui.service", 0])],
)
def test_comfyui_is_started_again_later_each_time_until_one_start_has_held(
    tmp_path: Path, restarts: int, ran_seconds: int, waits: list[str | int]
) -> None:
    began, done = 5_000_000, tmp_path / "done"
    ended = began + ran_seconds * 1_000_000
    shown = f"NRestarts={restarts}\nActiveEnterTimestampMonotonic={began}\nActiveExitTimestampMonotonic={ended}"
    for name, script in {
        "systemctl": f'if [ "$1" = show ]; then echo "{shown}"; else echo "$*" >> {done}; fi',
        "sleep": f'echo "$*" >> {done}',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    text = (UNITS / "comfyui.service").read_text().replace("\\\n", "")
    [line] = re.findall(r"^ExecStartPre=-\+/bin/sh -c '(.*NRestarts.*)'$", text, re.MULTILINE)
    subprocess.run(["/bin/sh", "-c", line.replace("$$", "$")], env={"PATH": str(tmp_path)}, check=True)
    assert done.read_text().splitlines() == [str(word) for word in waits]


def test_a_shutdown_does_not_cut_off_the_work_on_the_data_disk() -> None:
    service = unit("comfyweb-disk.service")["Service"]
    assert (service["KillSignal"], service["TimeoutStopSec"]) == ("SIGCONT", "100")


@pytest.mark.skipif(shutil.which("perl") is None, reason="perl is not installed")
def test_an_upgrade_of_the_system_restarts_no_comfyui() -> None:
    # As needrestart reads it: Perl, with a regular expression for each name of a service.
    reads = """
        our (%nrconf, $file, @names); ($file, @names) = @ARGV;
        eval do { local(@ARGV, $/) = $file; <> }; die $@ if $@;
        my $left_alone = $nrconf{override_rc};
        for my $name (@names) { print "$name " if grep { $name =~ /$_/ && !$left_alone->{$_} } keys %$left_alone }
    """
    services = ["comfyui.service", "comfyweb-disk.service", "comfyweb-keeper.service", "my-comfyui.service"]
    said = subprocess.run(["perl", "-e", reads, UNITS / "needrestart.conf", *services], capture_output=True, check=True)
    assert said.stdout.decode().split() == services[:2]


def test_the_gate_owns_nothing_and_only_nginx_gets_to_its_sockets() -> None:
    gate = unit("comfyweb-gate.service")["Service"]
    assert (gate["User"], gate["RuntimeDirectoryMode"], gate["CapabilityBoundingSet"]) == ("comfyweb-gate", "0750", "")
    assert (gate["IPAddressDeny"], gate["IPAddressAllow"]) == ("any", "localhost")
    assert (gate["Restart"], gate["WatchdogSec"], gate["RuntimeDirectoryPreserve"]) == ("always", "30", "yes")


def test_comfyui_starts_with_the_metadata_block_in_force_and_a_new_one_leaves_it_running() -> None:
    comfyui, block = unit("comfyui.service"), unit("comfyweb-metadata-block.service")["Service"]
    assert comfyui["Unit"]["Requires"] == "comfyweb-metadata-block.service"
    assert f"ExecStartPre=+{block['ExecStart']}\n" in (UNITS / "comfyui.service").read_text()
    assert block["ExecReload"] == block["ExecStart"]


def test_nginx_waits_for_nothing_at_boot() -> None:
    nginx = unit("comfyweb-nginx.service")
    assert nginx["Unit"]["DefaultDependencies"] == "no"
    assert nginx["Unit"]["After"] == "local-fs.target"
    assert not {"Requires", "Wants"} & set(nginx["Unit"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize(
    "name",
    [
        "keeper.service",
        "deadman.service",
        "deadman.timer",
        "poweroff.service",
        "gate.service",
        "nginx.service",
        "visitors.service",
    ],
)
def test_systemd_understands_it(name: str, tmp_path: Path) -> None:
    """The programs that it names are those of a GPU machine, so true stands for them."""
    for path in UNITS.glob("comfyweb-*.*"):
        lines = path.read_text().splitlines()
        known = ["ExecStart=/bin/true" if line.startswith("ExecStart=") else line for line in lines]
        (tmp_path / path.name).write_text("\n".join(known) + "\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / f"comfyweb-{name}")],
        capture_output=True,
        text=True,
        check=False,
        env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
    )
    assert [line for line in done.stderr.splitlines() if "comfyweb" in line] == []
    assert done.returncode == 0
