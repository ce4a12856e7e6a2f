"""From whatever a machine is to what it should be; a second time nothing happens."""

import fcntl
import os
import threading
from pathlib import Path

import pytest

from tests.host import surroundings
from tests.host.machine import Host
from vm_setup.base import files
from vm_setup.setup import extension, holds
from vm_setup.setup.system import Done


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_blank_machine_becomes_one_that_runs_comfyui(host: Host) -> None:
    assert host.reconcile() == 0
    assert set(host.steps.values()) == {"done"}
    assert host.release() == "# v1\n"
    assert host.machine.started.startswith("v1-")
    assert not (host.machine.paths.runtime / "holds/installing.json").exists()
    for folder in ("models", "custom_nodes", "user", "input", "output"):
        assert (host.machine.data.base / folder).is_dir()
    assert host.warnings == "[]"


def test_comfyui_finds_our_extension_in_a_folder_that_its_user_can_not_change(host: Host) -> None:
    host.reconcile()
    paths = host.machine.paths
    said = dict(line.strip().split(": ") for line in files.read(paths.etc / extension.CONFIG).splitlines()[1:])
    node = Path(said["base_path"]) / said["custom_nodes"] / "comfyweb"
    assert "WEB_DIRECTORY" in (node / "__init__.py").read_text()
    assert (node / "web/comfyweb.js").stat().st_mode & 0o777 == 0o644
    assert not node.is_relative_to(host.machine.data.volume)
    assert f"/etc/{extension.CONFIG}" in files.read(paths.units / "comfyui.service")


def test_a_warm_boot_runs_no_command_at_all(host: Host) -> None:
    host.reconcile()
    host.machine.reboot()
    assert host.reconcile() == 0
    assert host.machine.calls == ["systemctl --no-block start comfyui.service comfyweb-answering.service"]
    host.machine.calls.clear()
    assert host.reconcile() == 0
    assert host.machine.calls == []


def test_the_machine_is_held_on_while_comfyui_is_installed(host: Host) -> None:
    found: list[object] = []

    def look(line: str) -> None:
        if "checkout" in line:
            found.append(files.read_object(host.machine.paths.runtime / "holds/installing.json")["until"])

    host.machine.on_command = look
    host.reconcile()
    [until] = found
    assert isinstance(until, float)
    assert host.machine.time < until < host.machine.time + 86400


def test_it_is_held_on_while_packages_are_installed_and_the_disk_is_worked_on(host: Host) -> None:
    (host.machine.root / "usr/bin/nft").unlink()
    held: dict[str, set[str]] = {}

    def look(line: str) -> Done | None:
        program = line.split(maxsplit=1)[0]
        held[program] = {path.stem for path in (host.machine.paths.runtime / "holds").glob("*.json")}
        return Done() if program == "apt-get" else None

    host.machine.on_command = look
    host.reconcile()
    assert held["apt-get"] == {"packages"}
    assert held["blkid"] == held["mkfs.ext4"] == {"disk"}
    host.machine.attach(128 << 20)
    host.machine.reboot()
    assert held["e2fsck"] == held["resize2fs"] == {"disk"}
    assert not list((host.machine.paths.runtime / "holds").glob("*.json"))


def test_a_hold_is_written_anew_until_the_work_is_over(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "_EVERY_SECONDS", 0.01)
    file = host.machine.paths.runtime / "holds/work.json"

    def until() -> float:
        return float(str(files.read_object(file)["until"]))

    with holds.held(host.machine.system, "work"):
        first = until()
        assert first <= host.machine.time + holds.SECONDS
        host.machine.time += 1000
        surroundings.until(lambda: until() > first + 900)
    assert not file.exists()


def test_what_went_wrong_in_one_step_does_not_keep_the_others_from_being_done(host: Host) -> None:
    (host.machine.root / "usr/bin/nft").unlink()
    host.machine.on_command = lambda line: Done(code=100, err="E: no network") if line.startswith("apt-get") else None
    assert host.reconcile() == 1
    assert host.steps["packages"] == "failed"
    assert host.steps["comfyui"] == "done"
    assert "nftables could not be installed: E: no network" in host.warnings


def test_the_keeper_and_the_dead_man_switch_stand_before_anything_is_tried(host: Host) -> None:
    (host.machine.root / "usr/bin/nft").unlink()

    def nothing_works(line: str) -> Done | None:
        return Done(code=1) if line.startswith(("apt-get", "useradd", "systemctl start mnt-persist")) else None

    host.machine.on_command = nothing_works
    assert host.reconcile() == 1
    tried = host.machine.calls.index("systemctl --no-block start comfyweb-keeper.service comfyweb-deadman.timer")
    assert all(call.startswith("systemctl") for call in host.machine.calls[:tried])
    units = host.machine.paths.units
    assert (units / "multi-user.target.wants/comfyweb-keeper.service").is_symlink()
    assert (units / "timers.target.wants/comfyweb-deadman.timer").is_symlink()
    assert (units / "comfyweb-deadman.service").exists()
    assert host.machine.paths.good.is_symlink()
    assert "comfyui" in (host.machine.paths.etc / "needrestart/conf.d/comfyweb.conf").read_text()


def test_a_keeper_that_was_not_started_is_started_by_the_next_run(host: Host) -> None:
    host.machine.on_command = lambda line: Done(code=1, err="no") if "start comfyweb-keeper" in line else None
    assert host.reconcile() == 1
    assert "does not start comfyweb's keeper: no" in host.warnings
    host.machine.on_command = lambda _: None
    host.machine.calls.clear()
    assert host.reconcile() == 0
    assert any("start comfyweb-keeper" in call for call in host.machine.calls)


def test_missing_packages_are_installed_and_only_those(host: Host) -> None:
    (host.machine.root / "usr/bin/nft").unlink()

    def apt(line: str) -> Done | None:
        if line.endswith("install nftables"):
            host.machine.put("usr/sbin/nft")
        return Done() if line.startswith("apt-get") else None

    host.machine.on_command = apt
    assert host.reconcile() == 0
    assert [call.split()[-1] for call in host.machine.calls if call.startswith("apt-get")] == ["update", "nftables"]


def test_without_the_disk_comfyui_works_on_the_boot_disk_and_that_is_said(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.machine.paths.disk.unlink()
    assert host.reconcile() == 0
    assert host.steps["disk"] == "failed"
    assert host.steps["comfyui"] == "done"
    assert "not attached" in host.warnings
    assert not any("start mnt-persist.mount" in call for call in host.machine.calls), "systemd would wait for the disk"
    assert (host.machine.paths.fallback / "comfyui/current/main.py").exists()
    unit = (host.machine.paths.units / "comfyui.service").read_text()
    assert f"RequiresMountsFor={host.machine.paths.fallback}/comfyui" in unit


@pytest.mark.parametrize("device", ["UUID=abcd", "/dev/disk/by-id/google-models"])
def test_what_the_user_mounts_there_himself_is_used_and_stays_his(host: Host, device: str) -> None:
    machine = host.machine
    (machine.root / "dev/sdb").write_bytes(b"XFSB" + bytes(64 << 20))
    host.reconcile()
    assert "mount this one at /mnt/persist yourself" in host.warnings
    line = f"{device} /mnt/persist xfs defaults,nofail 0 2\n"
    machine.put("etc/fstab", line)

    def fstab(command: str) -> Done | None:
        if command != "systemctl start mnt-persist.mount":
            return None
        machine.paths.mount.mkdir(parents=True, exist_ok=True)
        machine.put("proc/self/mountinfo", f"90 22 8:16 / {machine.paths.mount} rw - xfs /dev/sdb rw\n")
        return Done()

    machine.on_command = fstab
    for _ in range(2):
        machine.reboot()
        assert host.reconcile() == 0
        assert host.warnings == "[]"
        assert host.steps["disk"] == "done"
        assert files.read(machine.paths.etc / "fstab") == line
        assert not list(machine.paths.units.rglob("mnt-persist.mount"))
    assert (machine.data.current / "main.py").exists()


@pytest.mark.parametrize("device", ["/dev/disk/by-id/google-persistent-comfyui", "UUID=abcd", "/dev/sdb"])
def test_a_line_that_does_what_our_unit_does_is_put_aside_by_whatever_name(host: Host, device: str) -> None:
    by_uuid = host.machine.root / "dev/disk/by-uuid/abcd"
    by_uuid.parent.mkdir(parents=True)
    by_uuid.symlink_to("../../sdb")
    host.machine.put("etc/fstab", f"{device} /mnt/persist ext4 defaults 0 2\n")
    assert host.reconcile() == 0
    assert files.read(host.machine.paths.etc / "fstab").startswith("# ")
    assert (host.machine.paths.units / "mnt-persist.mount").exists()


def test_when_the_disk_is_back_comfyui_moves_to_it(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.machine.paths.disk.unlink()
    host.reconcile()
    host.machine.reboot()
    host.machine.attach(64 << 20)
    assert host.reconcile() == 0
    assert host.steps["disk"] == "done"
    assert (host.machine.data.current / "main.py").exists()
    assert f"{host.machine.paths.mount}/comfyui" in (host.machine.paths.units / "comfyui.service").read_text()
    assert "systemctl stop comfyui.service" in host.machine.calls
    host.machine.paths.disk.unlink()
    host.machine.reboot()
    host.reconcile()
    host.machine.reboot()
    host.machine.attach(64 << 20)
    host.reconcile()
    assert "systemctl --no-block restart comfyui.service" in host.machine.calls, "it is there already this time"
    assert not any("git" in call for call in host.machine.calls)


def test_a_changed_unit_starts_comfyui_again_but_never_under_a_prompt(host: Host) -> None:
    host.reconcile()
    host.machine.queue = [["a prompt"]]
    unit = host.machine.paths.units / "comfyui.service"
    unit.write_text(unit.read_text() + "# an older one\n")
    files.write(host.machine.paths.state / "comfyui-started", "another")
    host.machine.calls.clear()
    host.reconcile()
    assert not any("restart comfyui" in call for call in host.machine.calls)
    host.machine.queue = []
    host.reconcile()
    assert any("restart comfyui" in call for call in host.machine.calls)


def test_a_new_host_version_starts_its_services_again_but_not_comfyui(host: Host) -> None:
    host.reconcile(version="1")
    host.machine.calls.clear()
    host.reconcile(version="2")
    [restarted] = [call for call in host.machine.calls if call.startswith("systemctl")]
    assert restarted.startswith("systemctl reload-or-restart")
    assert "comfyui.service" not in restarted


def test_a_service_that_does_not_start_is_told_and_tried_again(host: Host) -> None:
    host.machine.on_command = lambda line: Done(code=1, err="nft: no") if "reload-or-restart" in line else None
    host.reconcile()
    assert "did not start: nft: no" in host.warnings
    host.machine.on_command = lambda _: None
    host.machine.calls.clear()
    host.reconcile()
    assert any("reload-or-restart" in call for call in host.machine.calls)
    assert host.warnings == "[]"


def test_the_dead_man_switch_takes_a_version_whose_services_came_up_and_any_while_there_is_none(host: Host) -> None:
    for version in "123":
        host.machine.put(f"opt/comfyweb/{version}/comfyweb.pyz")
    good = host.machine.paths.good
    host.machine.on_command = lambda line: Done(code=1) if "reload-or-restart" in line else None
    for version in "12":
        host.reconcile(version=version)
        assert str(good.readlink()) == "1"
    host.machine.on_command = lambda _: None
    host.reconcile(version="3")
    assert str(good.readlink()) == "3"


def test_metadata_that_comes_late_is_waited_for_in_the_first_boot(host: Host) -> None:
    host.silent = 20
    assert host.reconcile() == 0
    assert host.release() == "# v1\n"
    assert host.warnings == "[]"


def test_what_another_version_has_left_is_cleared_up(host: Host) -> None:
    host.reconcile()
    left = "etc/systemd/system/comfyweb-former.service"
    host.machine.put(left, "# comfyweb: what it did\n[Install]\nWantedBy=multi-user.target\n")
    link = host.machine.paths.units / "multi-user.target.wants/comfyweb-former.service"
    link.symlink_to("../comfyweb-former.service")
    theirs = host.machine.put("etc/systemd/system/comfyweb-backup.service", "[Service]\nExecStart=/bin/true\n")
    for version in ("0", "1", "2"):
        host.machine.put(f"opt/comfyweb/{version}/comfyweb.pyz")
    files.link(host.machine.paths.versions / "current", "2")
    host.machine.calls.clear()
    assert host.reconcile() == 0
    assert not link.is_symlink()
    assert not (host.machine.root / left).exists()
    assert [call for call in host.machine.calls if "former" in call] == ["systemctl stop comfyweb-former.service"]
    assert host.machine.calls[-1] == "systemctl daemon-reload"
    assert theirs.exists()
    assert {path.name for path in host.machine.paths.versions.glob("[0-9]")} == {"1", "2"}


def test_while_metadata_is_silent_the_last_good_one_serves_and_it_is_asked_again(host: Host) -> None:
    host.reconcile()
    host.upgrade("v2")
    host.machine.reboot()
    host.silent = 12
    assert host.reconcile() == 0
    assert host.release() == "# v2\n"
    host.machine.reboot()
    host.silent = 10_000
    assert host.reconcile() == 1
    assert host.release() == "# v2\n"
    assert "earlier boot" in host.warnings


def test_without_metadata_ever_no_comfyui_is_guessed(host: Host) -> None:
    host.silent = 10_000
    assert host.reconcile() == 1
    assert not host.machine.data.current.exists()
    assert "not known yet" in host.warnings
    assert host.steps["disk"] == "done"


def test_a_second_run_waits_for_the_first(host: Host) -> None:
    host.machine.paths.runtime.mkdir(parents=True)
    with (host.machine.paths.runtime / "reconcile.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = threading.Thread(target=host.reconcile)
        second.start()
        second.join(0.2)
        assert second.is_alive()
        assert host.machine.calls == []
    second.join(60)
    assert host.release() == "# v1\n"


def test_a_file_in_the_place_of_a_folder_of_models_keeps_nothing_from_being_installed(host: Host) -> None:
    host.reconcile()
    models = host.machine.data.base / "models"
    models.rmdir()
    models.write_text("of a node's")
    host.upgrade("v2")
    assert host.reconcile() == 0
    assert host.release() == "# v2\n"
    assert models.read_text() == "of a node's"


def test_where_comfyuis_user_has_another_number_all_that_was_its_own_is_given_to_it(host: Host) -> None:
    host.reconcile()
    passwd = host.machine.root / "etc/passwd"
    passwd.write_text(passwd.read_text().replace(f"comfyui:x:{os.getuid()}:", "comfyui:x:4242:"))
    host.machine.calls.clear()
    host.reconcile()
    given = {Path(call.split()[-1]) for call in host.machine.calls if call.startswith("chown -Rh 4242:")}
    tree = host.machine.data.tree
    environments = {*tree.glob("venv-*"), *tree.glob("tools-*")}
    assert len(environments) == 2
    assert given >= environments | {tree / "base", tree / "home", tree / "uv-cache"}
    assert not given & {tree / "releases", tree / "state"}


def test_an_unexpected_fault_is_told_where_it_happened(host: Host) -> None:
    def broken(line: str) -> None:
        if line.startswith("useradd"):
            raise ValueError("never seen before")

    host.machine.on_command = broken
    assert host.reconcile() == 1
    assert host.steps["comfyui-install"] == "failed"
    assert "ValueError: never seen before" in host.warnings
