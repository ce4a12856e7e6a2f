"""The control endpoint: what goes wrong on demand, who may demand it, and how the guest gets its electricity."""

import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from comfyweb.demo.faults import KINDS
from comfyweb.demo.model import Status
from tests.cloudbox import CloudBox


class Recorder:
    """A guest that writes down what happens to it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.broken = False
        self.poweroff: Callable[[], None] | None = None

    async def power_on(self, boot_id: str) -> None:
        self.events.append(f"on {boot_id}")
        if self.broken:
            raise OSError("no port left")

    async def power_off(self) -> None:
        self.events.append("off")

    def idle_in(self, seconds: float) -> None:
        self.events.append(f"idle in {seconds}")
        if self.poweroff:
            self.poweroff()


def soon(holds: Callable[[], object]) -> None:
    """Wait for the emulator's own thread."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


def state(box: CloudBox) -> dict[str, Any]:
    return box.control("", method="GET")


def test_the_state_names_machines_faults_operations_and_the_clock(still_cloud: CloudBox) -> None:
    still_cloud.control("machine", {"action": "start"})
    still_cloud.fault("stockout", times=2, zonesAvailable="us-central1-b")
    found = state(still_cloud)
    assert found["clock"] == "manual"
    assert found["machines"][0]["status"] == "TERMINATED"
    assert found["operations"][0]["user"] == "somebody@example.com"
    assert found["faults"] == [
        {
            "kind": "stockout",
            "verb": "start",
            "times": 2,
            "until": None,
            "after_seconds": None,
            "zonesAvailable": "us-central1-b",
        }
    ]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_fault_can_be_asked_for_and_cleared(still_cloud: CloudBox, kind: str) -> None:
    still_cloud.fault(kind)
    assert [fault["kind"] for fault in state(still_cloud)["faults"]] == [kind]
    assert still_cloud.control("fault", method="DELETE")["faults"] == []


def test_a_fault_for_a_while_passes_by_itself(still_cloud: CloudBox) -> None:
    url = f"{still_cloud.url}/compute/v1/projects/demo-project/zones"
    still_cloud.fault("unavailable", seconds=30)
    assert [httpx.get(url).status_code for _ in range(3)] == [503, 503, 503]
    still_cloud.advance(31)
    assert httpx.get(url).status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("fault", {}),
        ("fault", {"kind": "earthquake"}),
        ("fault", {"kind": ["quota"]}),
        ("fault", {"kind": "quota", "times": 0}),
        ("fault", {"kind": "quota", "times": True}),
        ("fault", {"kind": "quota", "verb": "explode"}),
        ("fault", {"kind": "quota", "seconds": -1}),
        ("fault", {"kind": "quota", "zonesAvailable": 1}),
        ("fault", {"kind": "quota", "after_seconds": "soon"}),
        ("machine", {"action": "rename"}),
        ("machine", {"action": "explode"}),
        ("machine", {"action": "status", "status": "ON"}),
        ("machine", {"action": "start", "zone": 1}),
        ("idle", {}),
        ("idle", {"seconds_left": "soon"}),
        ("clock", {"advance_seconds": -1}),
        ("clock", {"advance_seconds": 1e300}),
    ],
)
def test_what_cannot_be_is_refused_with_words(still_cloud: CloudBox, path: str, body: dict[str, object]) -> None:
    answer = httpx.post(f"{still_cloud.url}/control/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_only_a_manual_clock_can_be_moved(cloud: CloudBox) -> None:
    answer = httpx.post(f"{cloud.url}/control/clock", json={"advance_seconds": 1})
    assert answer.status_code == 409


def test_somebody_else_starts_stops_deletes_and_creates(still_cloud: CloudBox) -> None:
    still_cloud.control("machine", {"action": "start"})
    still_cloud.advance(30)
    assert still_cloud.machine.status is Status.RUNNING
    still_cloud.control("machine", {"action": "stop"})
    still_cloud.advance(30)
    assert still_cloud.machine.status is Status.TERMINATED
    still_cloud.control("machine", {"action": "delete"})
    still_cloud.advance(30)
    assert state(still_cloud)["machines"] == []
    assert httpx.post(f"{still_cloud.url}/control/machine", json={"action": "start"}).status_code == 404
    still_cloud.control("machine", {"action": "create"})
    still_cloud.control("machine", {"action": "status", "status": "SUSPENDED"})
    assert still_cloud.machine.status is Status.SUSPENDED


def test_only_a_running_machine_is_taken_back(still_cloud: CloudBox) -> None:
    assert httpx.post(f"{still_cloud.url}/control/preempt").status_code == 409


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example.com"},
        {"Host": "127.0.0.1.evil.example.com"},
        {"Host": "[::1"},
        {"Host": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:3000"},
        {"Origin": "https://evil.example.com"},
        {"Origin": "null"},
    ],
)
@pytest.mark.parametrize("path", ["/", "/control", "/control/fault", "/compute/v1/projects/demo-project/zones"])
def test_a_web_page_elsewhere_cannot_drive_it(still_cloud: CloudBox, headers: dict[str, str], path: str) -> None:
    method = "DELETE" if path.endswith("fault") else "GET"
    assert httpx.request(method, still_cloud.url + path, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Host": "localhost:3001"},
        {"Host": "[::1]:3001"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"},
        {"Origin": "http://localhost:3000"},
    ],
)
def test_programs_and_pages_of_this_computer_can(still_cloud: CloudBox, headers: dict[str, str]) -> None:
    assert httpx.get(f"{still_cloud.url}/control", headers=headers).status_code == 200


def test_the_page_needs_nothing_from_elsewhere(still_cloud: CloudBox) -> None:
    page = httpx.get(still_cloud.url)
    assert "Cloud in a box" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("<!doctype html>", "")
    for path in ("page.css", "page.js"):
        assert f"/control/{path}" in page.text
        assert httpx.get(f"{still_cloud.url}/control/{path}").status_code == 200


def test_the_guest_has_electricity_from_running_until_terminated() -> None:
    guest = Recorder()
    with CloudBox(manual=True, guest=guest) as box:
        box.control("machine", {"action": "start"})
        box.advance(5)
        assert guest.events == []
        box.advance(5)
        on = f"on {box.machine.boot_id}"
        soon(lambda: guest.events == [on])
        box.control("machine", {"action": "stop"})
        box.advance(2)
        assert box.machine.status is Status.STOPPING
        assert guest.events == [on]
        box.advance(5)
        soon(lambda: guest.events == [on, "off"])


def test_a_reset_takes_the_guests_electricity_away_for_a_moment() -> None:
    guest = Recorder()
    with CloudBox(guest=guest) as box:
        box.control("machine", {"action": "start"})
        soon(lambda: len(guest.events) == 1)
        machine = f"{box.url}/compute/v1/projects/demo-project/zones/us-central1-a/instances/comfyui-gpu"
        assert httpx.post(f"{machine}/reset").status_code == 200
        soon(lambda: len(guest.events) == 3)
        assert guest.events[1:] == ["off", f"on {box.machine.boot_id}"] != ["off", guest.events[0]]


def test_the_guest_can_switch_its_machine_off() -> None:
    guest = Recorder()
    with CloudBox(manual=True, guest=guest) as box:
        guest.poweroff = box.box.poweroff
        box.control("idle", {"seconds_left": 0})
        assert not box.world.operations, "it is off already"
        box.control("machine", {"action": "start"})
        box.advance(30)
        soon(lambda: guest.events[-1].startswith("on "))
        assert (
            box.control("idle", {"seconds_left": 0})["operations"][0]["operationType"]
            == "compute.instances.guestTerminate"
        )
        assert box.machine.status is Status.STOPPING
        box.advance(30)
        soon(lambda: guest.events[-1] == "off")


def test_the_guest_is_told_to_be_idle_soon() -> None:
    guest = Recorder()
    with CloudBox(guest=guest) as box:
        box.control("idle", {"seconds_left": 20})
    assert guest.events == ["idle in 20"]


def test_a_guest_that_fails_leaves_compute_engine_alone() -> None:
    guest = Recorder()
    guest.broken = True
    with CloudBox(guest=guest) as box:
        box.control("machine", {"action": "start"})
        soon(lambda: guest.events)
        box.control("machine", {"action": "stop"})
        soon(lambda: box.machine.status is Status.TERMINATED)


def test_the_end_of_the_emulator_is_the_end_of_the_guest() -> None:
    guest = Recorder()
    with CloudBox(guest=guest) as box:
        box.control("machine", {"action": "start"})
        soon(lambda: guest.events)
    assert guest.events[-1] == "off"
