"""What goes wrong late, slowly, or below HTTP: on demand, and only as often as was asked."""

import json
import socket
from datetime import timedelta
from typing import Any

import httpx
import pytest

from comfyweb.demo.faults import OPERATION_FAULTS
from comfyweb.demo.model import Status
from tests.cloudbox import CloudBox

PATH = "/compute/v1/projects/demo-project/zones/us-central1-a/instances/comfyui-gpu"


def call(box: CloudBox, verb: str) -> str:
    answer = httpx.post(f"{box.url}{PATH}/{verb}")
    assert answer.status_code == 200, answer.text
    return answer.json()["name"]


def operation(box: CloudBox, name: str) -> dict[str, Any]:
    return httpx.get(f"{box.url}/compute/v1/projects/demo-project/zones/us-central1-a/operations/{name}").json()


@pytest.mark.parametrize("kind", sorted(OPERATION_FAULTS))
@pytest.mark.parametrize("after", [0, 90])
def test_a_start_fails_when_it_was_told_to(still_cloud: CloudBox, kind: str, after: int) -> None:
    still_cloud.fault(kind, after_seconds=after)
    name = call(still_cloud, "start")
    still_cloud.advance(max(after, 0.1))
    assert operation(still_cloud, name)["status"] != "DONE"
    assert still_cloud.machine.status is (Status.PROVISIONING if after else Status.TERMINATED)
    still_cloud.advance(1)
    found = operation(still_cloud, name)
    assert found["status"] == "DONE"
    assert found["error"]["errors"][0]["code"].isupper()
    assert still_cloud.machine.status is Status.TERMINATED


def test_a_stock_out_names_the_zones_that_have_some(still_cloud: CloudBox) -> None:
    still_cloud.fault("stockout-details", zonesAvailable="us-central1-a,us-central1-f")
    name = call(still_cloud, "start")
    still_cloud.advance(10)
    details = operation(still_cloud, name)["error"]["errors"][0]["errorDetails"]
    info = next(detail["errorInfo"] for detail in details if "errorInfo" in detail)
    assert info["metadatas"]["zonesAvailable"] == "us-central1-a,us-central1-f"


@pytest.mark.parametrize(("after", "ends"), [({"after_seconds": 600}, True), ({}, False)])
def test_a_stop_takes_as_long_as_it_was_told_to(still_cloud: CloudBox, after: dict[str, int], *, ends: bool) -> None:
    call(still_cloud, "start")
    still_cloud.advance(30)
    still_cloud.fault("slow-stop", **after)
    names = [call(still_cloud, "stop")]
    still_cloud.advance(599)
    names.append(call(still_cloud, "stop"))
    assert still_cloud.machine.status is Status.STOPPING
    still_cloud.advance(timedelta(days=7))
    assert (still_cloud.machine.status is Status.TERMINATED) == ends
    assert [operation(still_cloud, name)["status"] == "DONE" for name in names] == [ends, ends]


def test_a_call_that_hangs_is_never_answered_and_does_nothing(still_cloud: CloudBox) -> None:
    still_cloud.fault("hang", verb="start")
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{still_cloud.url}{PATH}/start", timeout=0.2)
    assert not still_cloud.world.operations
    call(still_cloud, "start")


def test_a_reset_is_a_reset_and_does_nothing(still_cloud: CloudBox) -> None:
    still_cloud.fault("reset", verb="start")
    with socket.create_connection(("127.0.0.1", still_cloud.port)) as connection:
        connection.sendall(f"POST {PATH}/start HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".encode())
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert not still_cloud.world.operations
    call(still_cloud, "start")


def test_half_an_answer_promises_all_of_it_and_the_work_is_done(still_cloud: CloudBox) -> None:
    still_cloud.fault("half-answer", verb="start")
    with socket.create_connection(("127.0.0.1", still_cloud.port)) as connection:
        connection.sendall(f"POST {PATH}/start HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".encode())
        said = b""
        while more := connection.recv(4096):
            said += more
    head, _, body = said.partition(b"\r\n\r\n")
    promised = int(next(line for line in head.split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1])
    assert 0 < len(body) < promised
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        json.loads(body)
    assert len(still_cloud.world.operations) == 1


def test_a_machine_that_is_off_gets_another_name(still_cloud: CloudBox) -> None:
    still_cloud.control("machine", {"action": "rename", "to": "another"})
    assert httpx.get(f"{still_cloud.url}{PATH}").status_code == 404
    assert httpx.get(f"{still_cloud.url}{PATH.replace('comfyui-gpu', 'another')}").json()["name"] == "another"
    still_cloud.control("machine", {"action": "create"})
    taken = {"action": "rename", "to": "another"}
    assert httpx.post(f"{still_cloud.url}/control/machine", json=taken).status_code == 409
    still_cloud.control("machine", {"action": "start"})
    still_cloud.advance(30)
    refused = {"action": "rename", "to": "third"}
    assert httpx.post(f"{still_cloud.url}/control/machine", json=refused).status_code == 400
