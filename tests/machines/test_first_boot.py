"""A machine that has never been on: by one startup script it gets a disk, ComfyUI and a keeper, and tells of it."""

import json

from tests.machines import sources
from tests.machines.conftest import NewMachine
from tests.machines.first_boot import FirstBoot
from tests.machines.installed import FIRST_BOOT_SECONDS, Host, equip

# Has dpkg's lock, as unattended-upgrades may, and says when it does.
HOLD = """
import fcntl, subprocess, time
with open("/var/lib/dpkg/lock-frontend", "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    subprocess.run(["systemd-notify", "--ready"], check=True)
    time.sleep(86400)
"""
IN_THE_BACKGROUND = "/usr/bin/systemd-run --quiet --unit"
WHEN_READY = "--property=Type=notify --property=NotifyAccess=all"
BEFORE_THE_STARTUP_SCRIPT = {
    "usr/local/lib/other.py": HOLD,
    "etc/systemd/system/google-startup-scripts.service.d/other.conf": (
        f"[Service]\nExecStartPre={IN_THE_BACKGROUND}=other-installation {WHEN_READY} /usr/bin/python3 "
        "/usr/local/lib/other.py\n"
    ),
}
PICTURE = "/mnt/persist/comfyui/base/output/ComfyUI_00001_.png"


def test_it_becomes_ready_and_nothing_on_it_has_failed(first_boot: FirstBoot) -> None:
    assert first_boot.state == "running"
    assert "startup-script exit status 0" in first_boot.journal
    assert first_boot.status["phase"] == "ready"
    assert first_boot.status["comfyui"]["version"] == "0.33.0"


def test_every_step_is_told_and_has_ended(first_boot: FirstBoot) -> None:
    # There is no graphics card here, and the page says so.
    assert first_boot.steps() == {
        "packages": "done",
        "gate": "done",
        "disk": "done",
        "driver": "failed",
        "comfyui-install": "done",
        "comfyui": "done",
    }


def test_the_app_hears_of_it_by_guest_attributes_on_the_way(first_boot: FirstBoot) -> None:
    # It tells at most every 5 s, and a step may be quicker, so that nobody hears of it between waiting and done.
    under_way = {"waiting", "running"}
    ahead = {step["name"] for told in first_boot.told for step in told["steps"] if step["state"] in under_way}
    assert "comfyui-install" in ahead
    assert {told["boot_id"] for told in first_boot.told} == {first_boot.status["boot_id"]}
    assert json.loads(first_boot.attributes["heartbeat"])["boot_id"] == first_boot.status["boot_id"]


def test_it_all_lies_on_the_persistent_disk_and_the_software_is_not_comfyuis_to_change(first_boot: FirstBoot) -> None:
    owners = {line.split()[0]: line.split()[1] for line in first_boot.files.splitlines() if len(line.split()) == 2}
    assert {"base/models", "base/custom_nodes", "base/user", "base/input", "base/output"} <= owners.keys()
    assert owners["base/models"] != "0"
    assert owners["releases"] == owners["state"] == "0"


def test_what_was_made_is_there_at_the_next_boot_which_fetches_and_installs_nothing(host: Host) -> None:
    machine = host.machine
    # With no program that could install anything, and nobody that it could be had from.
    machine.start()
    machine.wait_booted()
    machine.sh(
        "chmod 0 /usr/bin/apt-get /usr/bin/dpkg /usr/bin/git; "
        "cd /mnt/persist/comfyui; chmod 0 */bin/uv; rm -rf venv-*/lib/*/site-packages/pip; "
        "systemctl poweroff"
    )
    machine.wait_off()
    (machine.folder / "names").write_text("")
    machine.start()
    host.wait_ready()
    assert machine.wait_booted() == "running"
    assert machine.sh(f"cat /mnt/persist/comfyui/base/models/mine.safetensors; ls {PICTURE}") == f"mine\n{PICTURE}"
    asked = [line.split()[5] for line in (machine.folder / "names").read_text().splitlines() if "query[" in line]
    assert {name for name in asked if not name.endswith(("googleapis.com", "google.internal"))} == set()


def test_the_next_boot_expects_what_this_one_took(standing: Host) -> None:
    assert standing.step("comfyui")["expected_seconds"] is not None


def test_the_app_hears_by_guest_attributes_that_another_installation_is_waited_for(standing: Host) -> None:
    machine = standing.machine
    machine.sh(f"mv /usr/bin/git /usr/bin/git.away; cat > /run/other.py <<'END'\n{HOLD}\nEND")
    machine.sh(f"{IN_THE_BACKGROUND}=other-installation {WHEN_READY} python3 /run/other.py")
    machine.sh(f"{IN_THE_BACKGROUND}=again --collect google_metadata_script_runner startup")
    machine.until(lambda: "this one waits until it is over" in machine.attributes()["phase"], "words", every=0.5)
    machine.sh("mv /usr/bin/git.away /usr/bin/git; systemctl stop other-installation")
    machine.until(lambda: standing.step("packages")["state"] == "done", "the end of the step")
    machine.until(lambda: machine.sh("systemctl is-active again || true") == "inactive", "the end of the script")


def test_an_image_without_the_packages_gets_them_when_nothing_else_installs(new_machine: NewMachine) -> None:
    host = Host(equip(new_machine(warm=False, egress=True)))
    for path, text in BEFORE_THE_STARTUP_SCRIPT.items():
        host.machine.guest.put(path, text.encode())

    def step() -> str:
        read = "cat /run/comfyweb/steps.json"
        return host.machine.sh(read, check=False) if host.machine.guest.leader() else ""

    host.machine.start()
    host.machine.until(lambda: "Another package installation is under way (python3, process " in step(), "words")
    host.machine.sh("systemctl stop other-installation")
    host.wait_ready(FIRST_BOOT_SECONDS)
    assert host.step("packages")["state"] == "done"
    assert host.version() == sources.FIRST.removeprefix("v")
