"""The stand-in ComfyUI and where it comes from: what a host must find there to install and to run it."""

import json
from collections.abc import Iterator

import pytest

from tests.machines import sources
from tests.machines.installed import COMFYUI, Host
from tests.machines.machine import Machine

# As a host does it, by hand.
INSTALL = f"""
cd /root
git clone --quiet --branch {sources.FIRST} {sources.GIT} ComfyUI 2>&1
python3 -m venv venv
venv/bin/pip install --quiet --no-input --index-url {sources.INDEX} -r ComfyUI/requirements.txt
mkdir -p base/custom_nodes/one/web
echo 'WEB_DIRECTORY = "./web"' > base/custom_nodes/one/__init__.py
echo 'export {{}}' > base/custom_nodes/one/web/one.js
mkdir -p base/custom_nodes/broken
echo 'raise ValueError' > base/custom_nodes/broken/__init__.py
"""
RUN = (
    "/root/venv/bin/python /root/ComfyUI/main.py --listen 127.0.0.1 --port 8188 --base-directory /root/base "
    "--database-url sqlite:////root/base/comfyui.db --enable-manager --disable-auto-launch --cpu"
)


@pytest.fixture(scope="module")
def host(clean_computer: None) -> Iterator[Host]:
    """Install and start it once, on a machine without a way out."""
    with Machine() as machine:
        sources.serve(machine)
        machine.start()
        machine.wait_booted()
        machine.sh(INSTALL)
        machine.sh(f"systemd-run --quiet --unit=comfyui {RUN}")
        host = Host(machine)
        machine.until(host.answers, "ComfyUI")
        yield host


def test_it_does_its_jobs_and_tells_of_them_as_comfyui_does(host: Host) -> None:
    assert host.version() == "0.33.0"
    first, second = host.submit(0.5), host.submit(0.1)
    assert host.jobs() == 2
    host.machine.until(lambda: host.jobs() == 0, "the end of the jobs")
    assert list(json.loads(host.machine.get(COMFYUI, "/history")[1])) == [first, second]
    told = json.loads(host.machine.get(COMFYUI, "/api/jobs")[1])["jobs"]
    assert [(job["id"], job["status"]) for job in told] == [(second, "completed"), (first, "completed")]
    assert host.machine.sh("cd /root/base; ls *.db output/*").split() == [
        "comfyui.db",
        "output/ComfyUI_00001_.png",
        "output/ComfyUI_00002_.png",
    ]


def test_it_loads_the_nodes_that_it_can(host: Host) -> None:
    assert host.machine.get(COMFYUI, "/api/extensions") == (200, '["/extensions/one/one.js"]')
    assert host.machine.get(COMFYUI, "/extensions/one/one.js")[0] == 200
    assert "Cannot import /root/base/custom_nodes/broken" in host.machine.journal("comfyui.service")


def test_a_job_can_be_interrupted_and_the_queue_cleared(host: Host) -> None:
    host.submit(60)
    host.submit(60)
    host.machine.request(COMFYUI, "POST", "/queue", {"clear": True})
    host.machine.until(lambda: host.jobs() == 1, "an empty queue")
    host.machine.request(COMFYUI, "POST", "/interrupt")
    host.machine.until(lambda: host.jobs() == 0, "no job")


def test_releases_that_never_work_fail_each_in_its_own_way(host: Host) -> None:
    machine = host.machine
    other = RUN.replace("8188", "8199")
    for release, seconds, end in ((sources.DIES, 60, "1"), (sources.NEVER_ANSWERS, 1, "124")):
        machine.sh(f"git -C /root/ComfyUI checkout --quiet {release}")
        assert machine.sh(f"code=0; timeout {seconds} {other} || code=$?; echo $code").split()[-1] == end
    machine.sh(f"git -C /root/ComfyUI checkout --quiet {sources.NEEDS_THE_IMPOSSIBLE}")
    pip = f"/root/venv/bin/pip install --quiet --index-url {sources.INDEX} -r /root/ComfyUI/requirements.txt"
    assert machine.sh(f"{pip} 2>/dev/null || echo no") == "no"
    assert machine.sh(f"git ls-remote --exit-code {sources.GIT} {sources.UNKNOWN} || echo no") == "no"
