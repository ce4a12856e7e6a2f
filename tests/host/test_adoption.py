"""An old host is taken over where it is: nothing copied, nothing lost, and all of it can be put back."""

import json
import os
from pathlib import Path

import pytest

from tests.host.machine import Host
from vm_setup.setup import adoption, units
from vm_setup.setup.system import Done

SUPERVISOR = """[program:comfyui]
command=/mnt/persist/venv/bin/python main.py --listen 0.0.0.0 --port 8188
directory=/mnt/persist/ComfyUI
autostart=true
autorestart=true

[program:jupyter]
command=/usr/bin/jupyter lab
autostart=true
"""
CRONTAB = """# m h dom mon dow command
*/5 * * * * /usr/local/bin/check_idle.sh >/dev/null 2>&1
0 4 * * * /usr/local/bin/backup.sh
@reboot /root/start_comfyui.sh
0 23 * * 5 /sbin/shutdown -h now
"""
IDLE = """#!/bin/bash
# no requests to 8188 for 30 minutes: off
find /var/log/nginx/access.log -mmin +30 | grep -q . && shutdown -h now
"""
NGINX = """server {
  listen 80;
  location / { auth_basic "x"; proxy_pass http://127.0.0.1:8188; }
}
"""
FSTAB = """UUID=1 / ext4 defaults 0 1
/dev/disk/by-id/google-persistent-comfyui /mnt/persist ext4 discard,defaults 0 2
"""


@pytest.fixture
def old(tmp_path: Path) -> Host:
    """A machine as the old script left it: its disk is mounted, its services run."""
    host = Host(tmp_path)
    machine = host.machine
    assert machine.run("systemctl", "start", "mnt-persist.mount").ok
    machine.calls.clear()
    for name, text in {
        "etc/supervisor/conf.d/comfyui.conf": SUPERVISOR,
        "var/spool/cron/crontabs/root": CRONTAB,
        "etc/cron.d/other": "*/10 * * * * root /usr/bin/true\n",
        "usr/local/bin/check_idle.sh": IDLE,
        "usr/local/bin/backup.sh": "#!/bin/sh\ntar c /srv\n",
        "etc/nginx/conf/comfyui": NGINX,
        "etc/fstab": FSTAB,
        "mnt/persist/ComfyUI/models/checkpoints/big.safetensors": "weights",
        "mnt/persist/ComfyUI/custom_nodes/ours/__init__.py": "",
        "mnt/persist/ComfyUI/output/a.png": "picture",
        "mnt/persist/ComfyUI/user/default/workflows/w.json": "{}",
        "mnt/persist/ComfyUI/main.py": "# the old one\n",
        "mnt/persist/venv/pyvenv.cfg": "",
    }.items():
        machine.put(name, text)
    (machine.root / "mnt/persist/ComfyUI/input").mkdir()
    enabled = machine.root / "etc/nginx/sites-enabled"
    enabled.mkdir(parents=True)
    (enabled / "comfyui").symlink_to("../conf/comfyui")
    return host


def hand_back(host: Host) -> None:
    adoption.undo(host.machine.system, host.machine.data, stop=units.running(), remove=units.names())


def picture(host: Host, *places: str) -> dict[str, object]:
    """Everything below these places: content, link or folder, permissions."""
    found: dict[str, object] = {}
    for place in places:
        top = host.machine.root / place
        for path in [top, *sorted(top.rglob("*"))]:
            what = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else "folder"
            found[str(path)] = (what, path.lstat().st_mode)
    return found


OLD_PLACES = (
    "etc/supervisor",
    "etc/nginx",
    "etc/cron.d",
    "etc/fstab",
    "var/spool/cron",
    "usr/local",
    "mnt/persist/ComfyUI",
)


def test_models_and_pictures_are_used_where_they_lie(old: Host) -> None:
    assert old.reconcile() == 0
    base = old.machine.data.base
    assert (base / "models/checkpoints/big.safetensors").read_text() == "weights"
    assert (base / "models").resolve() == old.machine.root / "mnt/persist/ComfyUI/models"
    assert {p.name for p in base.iterdir() if p.is_symlink()} == set(adoption.FOLDERS)
    (base / "output/new.png").write_text("x")
    assert (old.machine.root / "mnt/persist/ComfyUI/output/new.png").exists()
    assert "set up by another script" in old.warnings


def test_the_old_services_are_off_and_nothing_else_is(old: Host) -> None:
    old.reconcile()
    supervisor = (old.machine.root / "etc/supervisor/conf.d/comfyui.conf").read_text()
    assert supervisor.partition("[program:jupyter]")[0].endswith("autostart=false\nautorestart=false\n")
    assert supervisor.count("autostart=false") == 1
    assert "supervisorctl stop comfyui" in old.machine.calls
    crontab = (old.machine.root / "var/spool/cron/crontabs/root").read_text().splitlines()
    at_work = [line for line in crontab if not line.startswith("#")]
    assert at_work == ["0 4 * * * /usr/local/bin/backup.sh", "0 23 * * 5 /sbin/shutdown -h now"]
    assert not list((old.machine.root / "etc/nginx/sites-enabled").iterdir())
    fstab = (old.machine.root / "etc/fstab").read_text().splitlines()
    assert [line for line in fstab if not line.startswith("#")] == ["UUID=1 / ext4 defaults 0 1"]


def test_the_old_comfyui_is_stopped_before_ours_starts(old: Host) -> None:
    old.reconcile()
    calls = old.machine.calls
    ours = next(index for index, call in enumerate(calls) if "start comfyui.service" in call)
    assert calls.index("supervisorctl stop comfyui") < calls.index("supervisorctl update") < ours


def test_a_program_is_known_by_its_name_too(old: Host) -> None:
    conf = old.machine.root / "etc/supervisor/conf.d/comfyui.conf"
    conf.write_text("[program:comfyui]\ncommand=/root/start.sh\n\n[program:jupyter]\ncommand=/usr/bin/jupyter lab\n")
    old.reconcile()
    assert "supervisorctl stop comfyui" in old.machine.calls
    assert conf.read_text().partition("[program:jupyter]")[2].count("autostart") == 0


def test_adopting_again_changes_nothing(old: Host) -> None:
    old.reconcile()
    before = picture(old, *OLD_PLACES, "var/lib/comfyweb")
    old.machine.calls.clear()
    old.reconcile()
    assert picture(old, *OLD_PLACES, "var/lib/comfyweb") == before
    assert not any("supervisorctl" in call or "chown" in call for call in old.machine.calls)


def test_a_unit_of_somebody_elses_under_our_name_is_kept(old: Host) -> None:
    theirs = old.machine.put("etc/systemd/system/comfyui.service", "[Service]\nExecStart=/root/run.sh\n")
    old.reconcile()
    assert theirs.read_text().startswith(units.MARK)
    hand_back(old)
    assert theirs.read_text() == "[Service]\nExecStart=/root/run.sh\n"


def test_undo_puts_everything_back_and_the_next_boot_leaves_it_alone(old: Host) -> None:
    before = picture(old, *OLD_PLACES)
    old.reconcile()
    assert picture(old, *OLD_PLACES) != before
    old.machine.calls.clear()
    hand_back(old)
    assert picture(old, *OLD_PLACES) == before
    assert "supervisorctl start comfyui" in old.machine.calls
    assert not list(old.machine.paths.units.rglob("*comfy*.service"))
    [stopped] = [call for call in old.machine.calls if call.startswith("systemctl stop")]
    assert "mnt-persist" not in stopped
    old.machine.calls.clear()
    assert old.reconcile() == 0
    assert old.machine.calls == []
    assert "handed back" in old.warnings
    adoption.Manifest(old.machine.system).undone.unlink()
    old.reconcile()
    assert (old.machine.data.base / "models").is_symlink()


def test_what_people_changed_since_is_not_lost_by_undoing(old: Host) -> None:
    old.reconcile()
    crontab = old.machine.root / "var/spool/cron/crontabs/root"
    crontab.write_text(crontab.read_text() + "0 5 * * * /usr/local/bin/mine.sh\n")
    hand_back(old)
    assert crontab.read_text() == CRONTAB + "0 5 * * * /usr/local/bin/mine.sh\n"


def test_what_is_switched_on_again_is_switched_off_again_and_its_first_state_kept(old: Host) -> None:
    conf = old.machine.root / "etc/supervisor/conf.d/comfyui.conf"
    for _ in range(3):
        old.reconcile()
        conf.write_text(conf.read_text().replace("autostart=false\nautorestart=false", "autostart=true"))
    old.reconcile()
    assert conf.read_text().count("autostart=false") == 1
    assert len(adoption.Manifest(old.machine.system).entries()) == 4
    hand_back(old)
    assert conf.read_text() == SUPERVISOR


@pytest.mark.skipif(os.geteuid() != 0, reason="owners are changed, which needs root")
def test_owners_change_and_come_back_file_by_file(old: Host) -> None:
    theirs = old.machine.root / "mnt/persist/ComfyUI/output/a.png"
    os.chown(theirs, 4242, 4343)
    adoption.adopt_services(old.machine.system, old.machine.steps)
    old.machine.data.base.mkdir(parents=True)
    old.machine.on_command = lambda line: old.machine._commands(*line.split()) if line.startswith("chown") else None
    for uid in (990, 991):  # the second time what is there is ours: it must not count as what was there before
        adoption.adopt_files(old.machine.system, old.machine.data, uid, 992)
    assert (theirs.stat().st_uid, theirs.stat().st_gid) == (991, 992)
    weights = old.machine.root / "mnt/persist/ComfyUI/models/checkpoints/big.safetensors"
    assert weights.stat().st_uid == 991
    assert (old.machine.root / "mnt/persist/ComfyUI/main.py").stat().st_uid == 0
    hand_back(old)
    assert (theirs.stat().st_uid, theirs.stat().st_gid) == (4242, 4343)
    assert weights.stat().st_uid == 0


def test_a_fresh_boot_disk_adopts_the_old_data_disk_alone(old: Host) -> None:
    for place in ("etc/supervisor", "etc/nginx", "etc/cron.d", "var/spool", "etc/fstab"):
        old.machine.run("rm", "-r", old.machine.root / place)
    assert old.reconcile() == 0
    assert (old.machine.data.base / "models/checkpoints/big.safetensors").exists()
    assert not any("supervisorctl" in call for call in old.machine.calls)


def test_a_machine_that_was_never_old_is_not_touched(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.machine.put("etc/fstab", "UUID=1 / ext4 defaults 0 1\n")
    host.machine.put("etc/cron.d/sync", "0 1 * * * root /usr/bin/sync\n")
    host.machine.on_command = lambda line: pytest.fail(line) if "supervisorctl" in line else None
    host.reconcile()
    assert not (host.machine.paths.state / "adoption").exists()
    assert not any(path.is_symlink() for path in host.machine.data.base.iterdir())


BACKUPS = """15 4 * * * root gsutil -m rsync -r /mnt/persist/comfyui/base/output gs://mine
@daily root restic backup /mnt/persist/ComfyUI/output /mnt/persist/ComfyUI/user
"""
PROGRAMS = "[program:bot]\ncommand=/usr/bin/python3 /srv/comfyui-bot/main.py\ndirectory=/mnt/persist/ComfyUI/output\n"


def test_the_users_own_jobs_and_programs_go_on(old: Host) -> None:
    own = {"etc/cron.d/backup": BACKUPS, "etc/supervisor/conf.d/bot.conf": PROGRAMS}
    for name, text in own.items():
        old.machine.put(name, text)
    old.reconcile()
    for name, text in own.items():
        assert (old.machine.root / name).read_text() == text


def test_jobs_that_come_after_the_adoption_or_to_a_machine_that_was_never_old_are_the_users(
    old: Host, tmp_path: Path
) -> None:
    for host in (old, Host(tmp_path / "new")):
        host.reconcile()
        added = {
            "etc/cron.d/mine": "*/5 * * * * root test -e /run/idle && poweroff\n@reboot root /root/start_comfy.sh\n",
            "etc/nginx/sites-enabled/mine": NGINX,
        }
        for name, text in added.items():
            host.machine.put(name, text)
        host.machine.reboot()
        host.reconcile()
        for name, text in added.items():
            assert (host.machine.root / name).read_text() == text
        assert "another script" not in host.warnings, "it is told in the boot of the adoption"


def test_the_page_names_what_was_put_aside(old: Host) -> None:
    old.reconcile()
    for name in (
        "etc/supervisor/conf.d/comfyui.conf",
        "var/spool/cron/crontabs/root",
        "etc/nginx/sites-enabled/comfyui",
    ):
        assert str(old.machine.root / name) in old.warnings


def test_services_are_told_even_when_the_adoption_was_cut_off_before(old: Host) -> None:
    def cut_off(line: str) -> Done | None:
        if line == "supervisorctl update":
            raise KeyboardInterrupt
        return None

    old.machine.on_command = cut_off
    with pytest.raises(KeyboardInterrupt):
        old.reconcile()
    old.machine.on_command = lambda _: None
    old.reconcile()
    assert "supervisorctl update" in old.machine.calls
    assert "systemctl try-reload-or-restart nginx.service" in old.machine.calls


def test_the_manifest_is_readable_for_people(old: Host) -> None:
    old.reconcile()
    manifest = json.loads((old.machine.paths.state / "adoption/manifest.json").read_text())
    assert {Path(entry["path"]).name for entry in manifest["changed"]} == {"comfyui.conf", "root", "comfyui", "fstab"}
