"""ComfyUI on a machine: it comes back by itself, reaches only what it may, and its release is what metadata says."""

import pytest

from tests.machines import sources
from tests.machines.conftest import NewHost
from tests.machines.installed import COMFYUI, FIRST_BOOT_SECONDS, KEEPER, RECONCILE, Host
from tests.machines.visiting import HTTP
from tests.machines.weather import Sky

UNIT = "comfyui.service"
METADATA = "http://169.254.169.254/computeMetadata/v1/instance/zone"
# The machine's own program, which gives a new ComfyUI seconds instead of five minutes.
HASTY_RECONCILE = """python3 - <<'END'
import sys
sys.path.insert(0, "/opt/comfyweb/current/comfyweb.pyz")
from vm_setup import __main__ as program
from vm_setup.setup import comfyui
comfyui.HEALTHY_SECONDS = 10.0
sys.exit(program.main(["reconcile"]))
END"""
ASK = f"curl --silent --max-time 3 --header 'Metadata-Flavor: Google' {METADATA}"
# A custom node, whose package runs what it likes while it is installed, and leaves something running.
NODE = "/mnt/persist/comfyui/base/custom_nodes/theirs"
SAID = "/mnt/persist/comfyui/base/output/said"
SETUP = f"""
import os, setuptools, subprocess
tries = ["touch /etc/x", "touch /mnt/persist/comfyui/state/x", "mount -t tmpfs t /mnt", "ls /proc/1/root", "sudo -n id",
         "grep Cap /proc/self/status | grep -v 0000000000000000", "grep NoNewPrivs:.*0 /proc/self/status", {ASK!r}]
could = [words for words in tries if subprocess.run(["sh", "-c", words], capture_output=True).returncode == 0]
subprocess.Popen(["sleep", "86400"], start_new_session=True, stdout=-3, stderr=-3)
open("{SAID}", "w").write(f"{{os.getuid()}} {{could}}")
setuptools.setup(name="theirs", version="1")
"""


def test_killed_it_is_started_again(standing: Host) -> None:
    host, before = standing, standing.process(UNIT)
    host.kill(UNIT)
    host.machine.until(lambda: host.process(UNIT) not in (0, before) and host.answers(), "another process")


def test_its_pauses_grow_until_one_start_has_held(standing: Host) -> None:
    machine, unit = standing.machine, f"/etc/systemd/system/{UNIT}"

    def ends(starts: int) -> None:
        before = standing.process(UNIT)
        standing.kill(UNIT)
        machine.until(lambda: standing.process(UNIT) not in (0, before) and standing.answers(), "another process")
        assert machine.sh(f"systemctl show --property=NRestarts --value {UNIT}") == str(starts)

    machine.sh(f"sed -i 's/ 600000000 / 900000000000 /' {unit}; systemctl daemon-reload; systemctl restart {UNIT}")
    machine.until(standing.answers, "ComfyUI")
    ends(1)
    ends(2)
    machine.sh(f"sed -i 's/ 900000000000 / 1 /' {unit}; systemctl daemon-reload")
    ends(0)
    machine.sh(f"sed -i 's/ 1 / 600000000 /' {unit}; systemctl daemon-reload")
    assert " 600000000 " in machine.sh(f"cat {unit}")


def test_it_is_not_root_listens_on_loopback_and_cannot_reach_the_metadata_server(standing: Host) -> None:
    machine = standing.machine
    assert machine.sh(f"ps -o user= -p {standing.process(UNIT)}").strip() == "comfyui"
    listening = machine.sh("ss --numeric --listening --tcp --no-header | awk '{print $4}'").split()
    assert {each for each in listening if not each.startswith("127.0.0.1:")} <= {"0.0.0.0:80", "[::]:80"}, "nginx alone"
    assert machine.sh(ASK) != ""
    assert machine.sh(f"setpriv --reuid comfyui --regid comfyui --clear-groups {ASK} || echo refused") == "refused"


def test_it_cannot_take_the_ports_of_the_keeper_and_of_nginx_when_they_are_away(standing: Host) -> None:
    machine = standing.machine
    units = "comfyweb-keeper.service comfyweb-nginx.service"
    inside = f"nsenter -t {standing.process(UNIT)} -m setpriv --reuid comfyui --regid comfyui --clear-groups"
    take = "import socket, sys; socket.create_server(('127.0.0.1', int(sys.argv[1])))"
    machine.sh(f"systemctl mask --runtime --now {units}")
    for port, refused in ((KEEPER, True), (HTTP, True), (443, True), (8190, False)):
        said = machine.sh(f'{inside} python3 -c "{take}" {port} 2>&1', check=False)
        assert ("Permission denied" in said) is refused, (port, said)
        assert refused or said == "", (port, said)
    machine.sh(f"systemctl unmask --runtime {units}; systemctl start {units}")
    standing.wait_ready()


def test_it_cannot_change_its_own_software_or_the_machine(standing: Host) -> None:
    machine = standing.machine
    inside = f"nsenter -t {standing.process(UNIT)} -m setpriv --reuid comfyui --regid comfyui --clear-groups"
    for path in ("/etc/x", "/opt/comfyweb/x", "/mnt/persist/comfyui/current/x", "/mnt/persist/comfyui/state/x"):
        assert machine.sh(f"{inside} touch {path} 2>/dev/null || echo no") == "no", path
    machine.sh(f"{inside} touch /mnt/persist/comfyui/base/models/x")


def test_another_release_comes_with_the_next_boot_and_the_first_one_comes_back(new_host: NewHost) -> None:
    host = new_host(comfyweb_comfyui=sources.SECOND)
    for version, release in (("0.33.1", sources.FIRST), ("0.33.0", sources.FIRST)):
        host.machine.start()
        host.machine.until(lambda wanted=version: host.version() == wanted, version, within=FIRST_BOOT_SECONDS)
        host.machine.wait_booted()
        host.machine.metadata(comfyweb_comfyui=release)
        host.machine.sh("test -s /mnt/persist/comfyui/base/models/mine.safetensors; systemctl poweroff")
        host.machine.wait_off()


def test_what_a_node_has_installed_can_do_no_more_than_comfyui_and_ends_with_its_installation(standing: Host) -> None:
    machine = standing.machine
    user = "su -s /bin/sh comfyui -c"
    machine.sh(f"{user} 'mkdir -p {NODE}/package; echo theirs @ file://{NODE}/package > {NODE}/requirements.txt'")
    machine.sh(f"cat > {NODE}/package/setup.py <<'END'\n{SETUP}\nEND")
    machine.metadata(comfyweb_comfyui=sources.OTHER_PACKAGES)
    standing.reconcile()
    assert machine.sh(f"cat {SAID}") == f"{machine.sh('id -u comfyui')} []"
    assert machine.sh("pgrep -u comfyui sleep || true") == ""
    assert machine.sh("/mnt/persist/comfyui/current/.venv/bin/python -m pip list | grep --count theirs") == "1"
    machine.sh(f"rm -r {NODE} {SAID}")
    machine.metadata(comfyweb_comfyui=sources.FIRST)
    standing.reconcile()
    assert standing.version() == "0.33.0"


@pytest.mark.parametrize("release", [sources.UNKNOWN, sources.NEEDS_THE_IMPOSSIBLE])
def test_a_release_that_cannot_be_installed_leaves_the_good_one_running(standing: Host, release: str) -> None:
    def told() -> bool:  # the step may still tell of another release that failed
        step = standing.step("comfyui-install")
        return step.get("state") == "failed" and release in step["detail"]

    before = standing.process(UNIT)
    standing.machine.metadata(comfyweb_comfyui=release)
    standing.reconcile()
    standing.machine.until(told, "the failed step")
    assert standing.version() == "0.33.0"
    assert standing.process(UNIT) == before
    standing.machine.metadata(comfyweb_comfyui=sources.FIRST)
    standing.reconcile()


@pytest.mark.parametrize(
    ("release", "reconcile"), [(sources.NEVER_ANSWERS, HASTY_RECONCILE), (sources.DIES, RECONCILE)]
)
def test_a_release_that_hangs_or_dies_is_left_again_for_the_good_one(
    standing: Host, release: str, reconcile: str
) -> None:
    machine = standing.machine
    machine.metadata(comfyweb_comfyui=release)
    machine.sh(reconcile, within=FIRST_BOOT_SECONDS)
    machine.until(lambda: standing.version() == "0.33.0", "the good one")
    machine.until(lambda: f"{release} did not come up" in " ".join(standing.warnings()), "words about it")
    machine.metadata(comfyweb_comfyui=sources.FIRST)
    standing.reconcile()
    machine.until(lambda: release not in " ".join(standing.warnings()), "silence")


def test_a_new_host_version_leaves_comfyui_and_its_prompt_alone(standing: Host) -> None:
    machine, before = standing.machine, standing.process(UNIT)
    gate = standing.process("comfyweb-gate.service")
    standing.submit(600)
    machine.sh("rm /var/lib/comfyweb/services-started")  # as when another version's services were started last
    standing.reconcile()
    assert standing.process("comfyweb-gate.service") != gate
    assert (standing.process(UNIT), standing.jobs()) == (before, 1)
    assert machine.sh("nft list table inet comfyweb | grep --count 169.254.169.254") != "0"
    machine.request(COMFYUI, "POST", "/interrupt")
    machine.until(lambda: standing.jobs() == 0, "an empty queue")


def test_two_runs_at_once_do_no_harm(host: Host) -> None:
    host.boot()
    host.machine.wait_booted()
    host.machine.metadata(comfyweb_comfyui=sources.SECOND)
    said = host.machine.sh(
        f"{RECONCILE} > /tmp/first 2>&1 & {RECONCILE} > /tmp/second; wait $!; cat /tmp/first /tmp/second",
        within=FIRST_BOOT_SECONDS,
    )
    assert "waits for it" in said
    assert host.version() == "0.33.1"
    assert host.machine.sh("ls /mnt/persist/comfyui/releases | wc --lines") == "2"


@pytest.mark.parametrize("sky", [Sky.REFUSING, Sky.HTML, Sky.SILENT])
def test_a_metadata_server_that_talks_nonsense_changes_nothing_and_is_heard_when_it_recovers(
    standing: Host, sky: Sky
) -> None:
    host, machine = standing, standing.machine
    machine.metadata(comfyweb_comfyui=sources.SECOND)
    machine.weather.sky = sky
    machine.sh(f"systemd-run --quiet --collect --unit=again {RECONCILE}")
    machine.until(lambda: "what it was told in an earlier boot" in " ".join(host.warnings()), "the warning")
    assert (host.version(), host.phase()) == ("0.33.0", "ready")
    machine.weather.sky = Sky.CLEAR
    machine.until(lambda: host.version() == "0.33.1", "the release that is wanted", within=FIRST_BOOT_SECONDS)
    machine.metadata(comfyweb_comfyui=sources.FIRST)
    host.reconcile()
    assert host.version() == "0.33.0"


@pytest.mark.parametrize("sky", [Sky.REFUSING, Sky.SILENT])
def test_a_boot_does_not_wait_for_the_metadata_server(host: Host, sky: Sky) -> None:
    host.machine.weather.sky = sky
    host.boot()
    assert host.version() == "0.33.0"
    host.machine.weather.sky = Sky.CLEAR
    host.machine.until(lambda: "heartbeat" in host.machine.attributes(), "the keeper's word")


def test_comfyui_loads_comfywebs_own_extension(standing: Host) -> None:
    assert ".js" in standing.machine.get(COMFYUI, "/api/extensions")[1]
