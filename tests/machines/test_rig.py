"""The rig itself: what Compute Engine says of a machine is what happens inside it, and the other way round."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfyweb.demo.model import Status
from tests.machines import leftovers
from tests.machines.commands import CommandFailed
from tests.machines.conftest import NewMachine
from tests.machines.machine import Machine
from tests.machines.weather import Sky

WRITE = "http://metadata.google.internal/computeMetadata/v1/instance/guest-attributes/comfyweb/phase"
SCRIPT = f"""#!/bin/bash
id --user
echo "ran" >> /var/lib/runs
curl --silent --request PUT --header 'Metadata-Flavor: Google' --data hello {WRITE}
"""


@pytest.fixture(scope="module")
def on(clean_computer: None) -> Iterator[Machine]:
    """A machine that is on, for tests that leave it so."""
    with Machine() as made:
        made.start()
        made.wait_booted()
        yield made


def with_disk(machine: Machine) -> None:
    machine.sh("mkfs.ext4 -q /dev/disk/by-id/google-persistent-comfyui; mkdir -p /mnt/persist")
    machine.sh("mount /dev/disk/by-id/google-persistent-comfyui /mnt/persist")


def going_on_writing(machine: Machine, at: str) -> "subprocess.Popen[str]":
    """Make one file after the other in a folder; each one's number is said when it is there."""
    script = f"cd {at}; n=0; while :; do n=$((n + 1)); echo 1 > $n; echo $n; done"
    return subprocess.Popen(machine.guest.inside("/bin/sh", "-euc", script), stdout=subprocess.PIPE, text=True)


def test_a_start_boots_it_and_googles_agent_runs_the_startup_script_as_root(machine: Machine) -> None:
    machine.metadata(enable_guest_attributes="TRUE", startup_script=SCRIPT)
    machine.start()
    assert machine.wait_booted() == "running"
    assert machine.status is Status.RUNNING
    assert "startup-script: 0\n" in machine.journal("google-startup-scripts.service")
    assert machine.attributes() == {"phase": "hello"}


def test_its_own_poweroff_ends_in_terminated_and_the_next_start_runs_the_script_again(machine: Machine) -> None:
    machine.metadata(enable_guest_attributes="TRUE", startup_script=SCRIPT)
    for runs in ("ran", "ran\nran"):
        machine.start()
        machine.wait_booted()
        assert machine.sh("cat /var/lib/runs") == runs
        machine.sh("systemctl poweroff")
        machine.wait_off()
        with pytest.raises(CommandFailed, match="off"):
            machine.sh("true")


def test_a_reboot_from_inside_is_no_stop(machine: Machine) -> None:
    machine.start()
    machine.wait_booted()
    first = machine.sh("cat /proc/sys/kernel/random/boot_id; touch /var/lib/here")
    machine.sh("systemctl reboot")
    machine.until(lambda: machine.guest.boots == 2, "another boot")
    machine.wait_booted()
    assert machine.sh("cat /proc/sys/kernel/random/boot_id") != first
    machine.sh("test -e /var/lib/here")
    assert machine.status is Status.RUNNING


def test_a_reset_by_compute_engine_boots_it_anew(machine: Machine) -> None:
    machine.start()
    machine.wait_booted()
    machine.reset()
    assert machine.wait_booted() == "running"
    assert (machine.guest.boots, machine.status) == (2, Status.RUNNING)


def test_a_power_cut_loses_what_was_not_written_to_the_disks(machine: Machine) -> None:
    machine.start()
    machine.wait_booted()
    with_disk(machine)
    machine.sh("for at in /mnt/persist /var/lib; do echo 1 > $at/written; done; sync")
    # Any sync on this computer writes all that there is, so files are made up to the very moment of the cut.
    writers = {at: going_on_writing(machine, at) for at in ("/mnt/persist", "/var/lib")}
    for writer in writers.values():
        assert writer.stdout is not None
        writer.stdout.readline()
    machine.power_cut()
    last = {at: writer.communicate()[0].split()[-1] for at, writer in writers.items()}
    assert machine.status is Status.TERMINATED
    machine.start()
    machine.wait_booted()
    machine.sh("mount /dev/disk/by-id/google-persistent-comfyui /mnt/persist")
    for at, number in last.items():
        machine.sh(f"test -e {at}/written -a ! -e {at}/{number}")


def test_a_stop_by_compute_engine_ends_what_will_not_end(machine: Machine) -> None:
    machine.start()
    machine.wait_booted()
    machine.sh("systemd-run --quiet --property=TimeoutStopSec=infinity sh -c 'trap : TERM; while :; do sleep 1; done'")
    machine.stop()
    assert machine.guest.leader() is None


def test_without_the_persistent_disk_it_has_no_such_device(machine: Machine) -> None:
    machine.guest.data_attached = False
    machine.start()
    machine.wait_booted()
    machine.sh("test ! -e /dev/disk/by-id/google-persistent-comfyui -a ! -e /dev/sdb")


def test_it_reaches_nothing_but_its_metadata_server(on: Machine) -> None:
    assert on.sh("getent hosts metadata.google.internal").startswith("169.254.169.254")
    for address in ("1.1.1.1", "8.8.8.8"):  # not those of EXTERNAL, which all lead back to it
        with pytest.raises(CommandFailed):
            on.sh(f"curl --silent --max-time 2 http://{address}/")


@pytest.mark.parametrize(("sky", "answer"), [(Sky.REFUSING, "403"), (Sky.HTML, "200"), (Sky.SILENT, "000")])
def test_its_metadata_server_has_bad_days(on: Machine, sky: Sky, answer: str) -> None:
    on.weather.sky = sky
    url = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
    patience = 2 if sky is Sky.SILENT else 60
    ask = f"curl --silent --max-time {patience} --header 'Metadata-Flavor: Google' --output /tmp/said {url}"
    said = on.sh(f"{ask} --write-out '%{{http_code}}'", check=False)
    on.weather.sky = Sky.CLEAR
    assert said == answer


def test_two_machines_know_nothing_of_each_other(new_machine: NewMachine) -> None:
    first, second = new_machine(), new_machine()
    for each, word in ((first, "one"), (second, "two")):
        each.metadata(word=word)
        each.start()
    for each, word in ((first, "one"), (second, "two")):
        each.wait_booted()
        url = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/word"
        assert each.sh(f"curl --silent --header 'Metadata-Flavor: Google' {url}") == word
    first.power_cut()
    assert second.sh("systemctl is-system-running") == "running"


def test_a_way_out_is_there_when_a_test_asks_for_it(new_machine: NewMachine) -> None:
    machine = new_machine(warm=False, egress=True)
    machine.start()
    machine.wait_booted()
    machine.sh("apt-get update")
    assert "Candidate: 1:2" in machine.sh("apt-cache policy git")


def test_nothing_is_left_of_a_machine_that_is_closed_while_it_runs(machine: Machine) -> None:
    machine.start()
    machine.wait_booted()
    with_disk(machine)
    assert len(leftovers.found(machine.name)) > 5
    machine.close()
    assert leftovers.found(machine.name) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_of_a_run_that_was_ended(clean_computer: None, how: signal.Signals, tmp_path: Path) -> None:
    program = tmp_path / "run.py"
    program.write_text(
        "import signal\nimport time\nfrom tests.machines.machine import Machine\n"
        # What a shell starts in the background is told to ignore it, and tells its own.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with Machine() as machine:\n    machine.start()\n    machine.wait_booted()\n"
        "    print(machine.name, flush=True)\n    time.sleep(60)\n"
    )
    root = Path(__file__).parent.parent.parent
    run = subprocess.Popen(
        [sys.executable, program], env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    name = run.stdout.readline().strip()
    assert leftovers.found(name)
    run.send_signal(how)
    run.wait(30)
    run.stdout.close()
    leftovers.sweep_abandoned()
    assert leftovers.found(name) == []


def test_a_power_cut_at_any_moment_of_the_boot_leaves_a_machine_that_boots(machine: Machine) -> None:
    for moment in (0.0, 0.05, 0.2, 0.4):
        machine.start()
        time.sleep(moment)
        machine.power_cut()
    machine.start()
    assert machine.wait_booted() == "running"
