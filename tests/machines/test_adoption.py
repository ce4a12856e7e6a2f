"""A machine that the old script set up, with a real supervisor and cron: taken over where it is, and handed back."""

import pytest

from tests.machines.conftest import NewMachine
from tests.machines.installed import FIRST_BOOT_SECONDS, Host, equip
from tests.machines.machine import Machine

OLD = "/mnt/persist/ComfyUI"
KEPT = "/etc/fstab /etc/supervisor/conf.d/comfyui.conf /var/spool/cron/crontabs/root"
MODEL = "models/checkpoints/big.safetensors"
SET_UP = f"""
apt-get -qq update && apt-get -qq install --yes --no-install-recommends supervisor >/dev/null
mkfs.ext4 -q /dev/disk/by-id/google-persistent-comfyui
mkdir -p /mnt/persist
echo '/dev/disk/by-id/google-persistent-comfyui /mnt/persist ext4 discard,defaults,nofail 0 2' >> /etc/fstab
mount /dev/disk/by-id/google-persistent-comfyui /mnt/persist
mkdir -p {OLD}/models/checkpoints {OLD}/custom_nodes/theirs {OLD}/output {OLD}/input {OLD}/user/default/workflows
echo weights > {OLD}/{MODEL}
echo '{{}}' > {OLD}/user/default/workflows/w.json
echo 'old answer' > {OLD}/index.html
cat > {OLD}/main.py <<'END'
import http.server
http.server.ThreadingHTTPServer(("0.0.0.0", 8188), http.server.SimpleHTTPRequestHandler).serve_forever()
END
cat > /etc/supervisor/conf.d/comfyui.conf <<'END'
[program:comfyui]
command=/usr/bin/python3 main.py --listen 0.0.0.0 --port 8188
directory={OLD}
autostart=true
autorestart=true
END
cat > /usr/local/bin/check_idle.sh <<'END'
#!/bin/sh
# no requests to 8188 for 30 minutes: off
find /var/log/nginx/access.log -mmin +30 | grep -q . && shutdown -h now
END
chmod +x /usr/local/bin/check_idle.sh
printf '*/5 * * * * /usr/local/bin/check_idle.sh\\n0 4 * * * /usr/local/bin/backup.sh\\n' | crontab -
"""


@pytest.fixture
def old(new_machine: NewMachine) -> Machine:
    machine = new_machine(egress=True)
    machine.start()
    machine.wait_booted()
    machine.sh(SET_UP, within=FIRST_BOOT_SECONDS)
    return machine


def serves_the_old_one(machine: Machine) -> bool:
    try:
        return machine.get(8188, "/index.html") == (200, "old answer\n")
    except OSError:
        return False


def listening(machine: Machine) -> list[str]:
    """Return the addresses on which somebody listens at ComfyUI's port."""
    return sorted(line.split()[3] for line in machine.sh("ss -Hltn 'sport = :8188'").splitlines())


def test_an_old_machine_is_adopted_and_handed_back_with_everything_as_it_was(old: Machine) -> None:
    before = old.sh(f"cat {KEPT}; stat -c '%n %u:%g' {OLD} {OLD}/{MODEL} {OLD}/user/default/workflows/w.json")
    old.until(lambda: old.sh("supervisorctl pid 2>&1", check=False).isdigit(), "supervisor")
    old.sh("supervisorctl reread; supervisorctl update")
    old.until(lambda: serves_the_old_one(old), "the old ComfyUI")
    host = Host(equip(old))
    host.reconcile()
    host.wait_ready()
    assert listening(old) == ["127.0.0.1:8188"]
    assert old.sh(f"cat /mnt/persist/comfyui/base/{MODEL}") == "weights"
    assert old.sh("crontab -l | grep -v '^#'") == "0 4 * * * /usr/local/bin/backup.sh"
    assert any("another script" in warning for warning in host.warnings())
    host.submit(0)
    old.until(lambda: host.jobs() == 0 and old.sh(f"ls {OLD}/output"), "a picture among the old ones")

    old.sh("systemctl poweroff")
    old.wait_off()
    host.boot()
    assert old.wait_booted() == "running"
    assert listening(old) == ["127.0.0.1:8188"]

    old.sh("python3 /opt/comfyweb/current/comfyweb.pyz adopt-undo")
    old.until(lambda: serves_the_old_one(old), "the old ComfyUI again")
    after = old.sh(f"cat {KEPT}; stat -c '%n %u:%g' {OLD} {OLD}/{MODEL} {OLD}/user/default/workflows/w.json")
    assert after == before
    assert "leaves it alone" in host.reconcile()
    assert listening(old) == ["0.0.0.0:8188"]
