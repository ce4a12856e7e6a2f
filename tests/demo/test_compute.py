"""Compute Engine over HTTP: Google's own clients drive it, and its description judges every answer."""

import uuid
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from google.api_core.exceptions import (
    BadRequest,
    Forbidden,
    GoogleAPICallError,
    NotFound,
    PreconditionFailed,
    ServiceUnavailable,
    TooManyRequests,
)
from google.cloud import compute_v1
from googleapiclient.errors import HttpError

from comfyweb.demo.faults import OPERATION_FAULTS, REFUSALS
from comfyweb.demo.model import Status
from tests.cloudbox import CloudBox
from tests.demo.conftest import WHERE, WHICH, Clients, discovery_client
from tests.demo.discovery import call_violations, error_violations, method_of, violations

INSTANCE = "/compute/v1/projects/demo-project/zones/us-central1-a/instances/comfyui-gpu"
LIMIT = compute_v1.Scheduling(
    max_run_duration=compute_v1.Duration(seconds=3600),
    instance_termination_action="STOP",
    on_host_maintenance="TERMINATE",
    provisioning_model="STANDARD",
)
DONE = compute_v1.Operation.Status.DONE


def start(box: CloudBox) -> None:
    Clients(box.url).instances.start_unary(**WHICH)
    box.advance(60)
    assert box.machine.status is Status.RUNNING


def one_item(key: str, value: str, fingerprint: str) -> compute_v1.Metadata:
    return compute_v1.Metadata(items=[compute_v1.Items(key=key, value=value)], fingerprint=fingerprint)


# -- google-cloud-compute ------------------------------------------------------------------------------------------


def test_googles_client_starts_the_machine_and_stops_it_again(still_cloud: CloudBox) -> None:
    clients = Clients(still_cloud.url)
    assert clients.get().status == "TERMINATED"
    operation = clients.instances.start_unary(**WHICH)
    seen: list[tuple[str, str]] = []
    for seconds in (0, 1, 4, 4):
        still_cloud.advance(seconds)
        seen.append((clients.operation(operation.name).status.name, clients.get().status))
    assert seen == [
        ("PENDING", "TERMINATED"),
        ("RUNNING", "PROVISIONING"),
        ("RUNNING", "STAGING"),
        ("DONE", "RUNNING"),
    ]
    up = clients.get()
    assert up.network_interfaces[0].access_configs[0].nat_i_p == still_cloud.machine.external_ip
    assert datetime.fromisoformat(up.last_start_timestamp) == still_cloud.machine.last_start

    clients.instances.stop_unary(**WHICH)
    still_cloud.advance(1)
    assert clients.get().status == "STOPPING"
    still_cloud.advance(10)
    assert clients.get().network_interfaces[0].access_configs[0].nat_i_p == ""


def test_a_machine_says_what_it_is(still_cloud: CloudBox) -> None:
    found = Clients(still_cloud.url).get()
    assert found.machine_type.endswith("/zones/us-central1-a/machineTypes/n1-standard-4")
    assert found.guest_accelerators[0].accelerator_type.endswith("/nvidia-tesla-t4")
    assert found.guest_accelerators[0].accelerator_count == 1
    assert found.scheduling.on_host_maintenance == "TERMINATE"


HOW_IT_FAILS = {
    "stockout": ("ZONE_RESOURCE_POOL_EXHAUSTED", 503),
    "stockout-details": ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", 503),
    "stockout-region": ("REGION_RESOURCE_POOL_EXHAUSTED", 503),
    "stockout-pool": ("RESOURCE_POOL_EXHAUSTED", 503),
    "stockout-gpu": ("GPU_STOCKOUT", 503),
    "quota": ("QUOTA_EXCEEDED", 403),
    "quota-region": ("QUOTA_EXCEEDED", 403),
    "not-ready-later": ("RESOURCE_NOT_READY", 400),
    "in-use-later": ("RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", 400),
    "act-as": ("SERVICE_ACCOUNT_ACCESS_DENIED", 400),
}


@pytest.mark.parametrize("kind", OPERATION_FAULTS)
def test_a_start_that_fails_is_accepted_and_fails_later(still_cloud: CloudBox, kind: str) -> None:
    clients = Clients(still_cloud.url)
    still_cloud.fault(kind, zonesAvailable="us-central1-b,us-central1-c")
    name = clients.instances.start_unary(**WHICH).name
    still_cloud.advance(1)
    assert (clients.operation(name).error.errors, clients.get().status) == ([], "PROVISIONING")
    still_cloud.advance(5)
    failed = clients.operation(name)
    assert failed.status == DONE
    assert (failed.error.errors[0].code, failed.http_error_status_code) == HOW_IT_FAILS[kind]
    assert clients.get().status == "TERMINATED"
    if kind == "stockout":
        metadatas = failed.error.errors[0].error_details[2].error_info.metadatas
        assert metadatas["zonesAvailable"] == "us-central1-b,us-central1-c"


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("permission", Forbidden, "forbidden"),
        ("rate-limit", Forbidden, "rateLimitExceeded"),
        ("too-many-requests", TooManyRequests, "rateLimitExceeded"),
        ("unavailable", ServiceUnavailable, "backendError"),
    ],
)
def test_a_fault_refuses_the_call_as_google_would_and_only_once(
    cloud: CloudBox, kind: str, error: type[GoogleAPICallError], reason: str
) -> None:
    clients = Clients(cloud.url)
    cloud.fault(kind, verb="start")
    clients.get()
    with pytest.raises(error) as refused:
        clients.instances.start_unary(**WHICH)
    assert refused.value.errors[0]["reason"] == reason
    assert not cloud.world.operations
    clients.instances.start_unary(**WHICH)


def test_a_missing_permission_is_named_and_known_to_whoever_asks(cloud: CloudBox) -> None:
    clients = Clients(cloud.url)
    cloud.fault("permission", verb="start", times=None)
    with pytest.raises(Forbidden) as refused:
        clients.instances.start_unary(**WHICH)
    assert refused.value.errors[0]["message"] == (
        "Required 'compute.instances.start' permission for "
        "'projects/demo-project/zones/us-central1-a/instances/comfyui-gpu'"
    )
    asked = compute_v1.TestPermissionsRequest(
        permissions=["compute.instances.start", "compute.instances.stop", "x.y.z"]
    )
    granted = clients.instances.test_iam_permissions(
        project="demo-project", zone="us-central1-a", resource="comfyui-gpu", test_permissions_request_resource=asked
    )
    assert list(granted.permissions) == ["compute.instances.stop"]


def test_a_lost_answer_is_got_by_asking_again_with_the_same_request_id(cloud: CloudBox) -> None:
    clients = Clients(cloud.url)
    request = {**WHICH, "request_id": str(uuid.uuid4())}
    cloud.fault("lost-answer", verb="start")
    with pytest.raises(GoogleAPICallError):
        clients.instances.start_unary(request=request)
    (accepted,) = cloud.world.operations
    replayed = clients.instances.start_unary(request=request)
    assert (replayed.name, replayed.client_operation_id) == (accepted, request["request_id"])


def test_the_zero_request_id_is_refused(cloud: CloudBox) -> None:
    with pytest.raises(BadRequest):
        Clients(cloud.url).instances.start_unary(request={**WHICH, "request_id": str(uuid.UUID(int=0))})


def test_metadata_changes_under_its_fingerprint(still_cloud: CloudBox) -> None:
    clients = Clients(still_cloud.url)
    before = clients.get().metadata.fingerprint
    clients.instances.set_metadata_unary(**WHICH, metadata_resource=one_item("a", "b", before))
    still_cloud.advance(1)
    after = clients.get().metadata
    assert [(item.key, item.value) for item in after.items] == [("a", "b")]
    assert after.fingerprint != before
    with pytest.raises(PreconditionFailed) as refused:
        clients.instances.set_metadata_unary(**WHICH, metadata_resource=one_item("a", "c", before))
    assert refused.value.errors[0] == {
        "message": "Supplied fingerprint does not match current metadata fingerprint.",
        "domain": "global",
        "reason": "conditionNotMet",
    }


def test_the_longest_duration_is_set_while_off_and_ends_the_run(still_cloud: CloudBox) -> None:
    clients = Clients(still_cloud.url)
    clients.instances.set_scheduling_unary(**WHICH, scheduling_resource=LIMIT)
    still_cloud.advance(1)
    start(still_cloud)
    up = clients.get()
    assert up.scheduling.max_run_duration.seconds == 3600
    terminates = datetime.fromisoformat(up.resource_status.scheduling.termination_timestamp)
    assert terminates == datetime.fromisoformat(up.last_start_timestamp) + timedelta(hours=1)
    with pytest.raises(BadRequest, match="stopped"):
        clients.instances.set_scheduling_unary(
            **WHICH, scheduling_resource=compute_v1.Scheduling(on_host_maintenance="TERMINATE")
        )
    still_cloud.advance(timedelta(hours=1, seconds=10))
    off = clients.get()
    assert off.status == "TERMINATED"
    assert off.resource_status.scheduling.termination_timestamp == ""


def test_guest_attributes_are_read_once_they_are_allowed_and_written(still_cloud: CloudBox) -> None:
    clients = Clients(still_cloud.url)

    def read(path: str) -> Any:
        request = compute_v1.GetGuestAttributesInstanceRequest(**WHICH, query_path=path)
        return clients.instances.get_guest_attributes(request=request)

    with pytest.raises(PreconditionFailed):
        read("comfyweb/")
    still_cloud.machine.metadata["enable-guest-attributes"] = "TRUE"
    with pytest.raises(NotFound, match=r"The resource 'comfyweb/' of type 'Guest Attribute' was not found\."):
        read("comfyweb/")
    still_cloud.machine.guest_attributes["comfyweb"] = {"phase": "ready", "heartbeat": "{}"}
    found = {item.key: item.value for item in read("comfyweb/").query_value.items}
    assert found == {"phase": "ready", "heartbeat": "{}"}
    assert [item.value for item in read("comfyweb/phase").query_value.items] == ["ready"]
    request = compute_v1.GetGuestAttributesInstanceRequest(**WHICH, variable_key="comfyweb/phase")
    assert clients.instances.get_guest_attributes(request=request).variable_value == "ready"
    with pytest.raises(BadRequest):
        clients.instances.get_guest_attributes(request=compute_v1.GetGuestAttributesInstanceRequest(**WHICH))


def test_the_serial_port_continues_where_it_was_read(still_cloud: CloudBox) -> None:
    clients = Clients(still_cloud.url)
    with pytest.raises(BadRequest) as refused:
        clients.instances.get_serial_port_output(**WHICH)
    assert refused.value.errors[0]["reason"] == "resourceNotReady"
    start(still_cloud)
    first = clients.instances.get_serial_port_output(**WHICH)
    assert still_cloud.machine.boot_id in first.contents
    request = compute_v1.GetSerialPortOutputInstanceRequest(**WHICH, start=first.next_)
    assert clients.instances.get_serial_port_output(request=request).contents == ""
    still_cloud.control("machine", {"action": "stop"})
    still_cloud.advance(2)
    assert "STOPPING" in clients.instances.get_serial_port_output(request=request).contents


def test_a_reset_is_accepted_while_it_runs_and_refused_while_off(still_cloud: CloudBox) -> None:
    clients = Clients(still_cloud.url)
    with pytest.raises(BadRequest):
        clients.instances.reset_unary(**WHICH)
    start(still_cloud)
    boot = still_cloud.machine.boot_id
    clients.instances.reset_unary(**WHICH)
    still_cloud.advance(1)
    assert still_cloud.machine.boot_id != boot
    assert clients.get().status == "RUNNING"


def test_wait_answers_when_the_operation_is_done(cloud: CloudBox) -> None:
    clients = Clients(cloud.url)
    name = clients.instances.start_unary(**WHICH).name
    assert clients.operations.wait(**WHERE, operation=name).status == DONE
    assert clients.get().status == "RUNNING"


def test_lists_are_filtered_and_paged(still_cloud: CloudBox) -> None:
    clients = Clients(still_cloud.url)
    for name in ("one", "two"):
        still_cloud.control("machine", {"action": "create", "name": name})

    def names(**query: Any) -> list[str]:
        pager = clients.instances.list(request=compute_v1.ListInstancesRequest(**WHERE, **query))
        return [found.name for found in pager]

    assert names() == names(max_results=1) == names(max_results=2) == ["comfyui-gpu", "one", "two"]
    assert names(filter="name=two") == names(filter='(name eq "two")') == ["two"]
    assert names(filter="status=TERMINATED AND name != two") == ["comfyui-gpu", "one"]
    assert names(filter="name=none") == []
    for bad in ({"filter": "=="}, {"max_results": 501}, {"page_token": "x"}):
        with pytest.raises(BadRequest):
            names(**bad)


def test_the_aggregated_list_names_empty_zones_too(still_cloud: CloudBox) -> None:
    found = dict(Clients(still_cloud.url).instances.aggregated_list(project="demo-project"))
    assert [machine.name for machine in found["zones/us-central1-a"].instances] == ["comfyui-gpu"]
    assert found["zones/us-central1-b"].warning.code == "NO_RESULTS_ON_PAGE"
    assert sorted(found) == ["zones/us-central1-a", "zones/us-central1-b", "zones/us-central1-c"]


def test_zones_and_operations_are_listed(still_cloud: CloudBox) -> None:
    clients = Clients(still_cloud.url)
    assert [zone.name for zone in clients.zones.list(project="demo-project")][-1] == "us-central1-c"
    assert clients.zones.get(**WHERE).status == "UP"
    assert list(clients.operations.list(**WHERE)) == []
    start(still_cloud)
    still_cloud.control("preempt")
    still_cloud.advance(10)
    kinds = [found.operation_type for found in clients.operations.list(**WHERE)]
    assert kinds == ["compute.instances.preempted", "start"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"project": "nobody"}, "projects/nobody"),
        ({"zone": "moon-a"}, "projects/demo-project/zones/moon-a"),
        ({"instance": "none"}, "projects/demo-project/zones/us-central1-a/instances/none"),
        ({"zone": "us-central1-b"}, "projects/demo-project/zones/us-central1-b/instances/comfyui-gpu"),
    ],
)
def test_what_is_not_there_is_not_found(still_cloud: CloudBox, what: dict[str, str], message: str) -> None:
    clients = Clients(still_cloud.url)
    for call in (clients.instances.get, clients.instances.start_unary):
        with pytest.raises(NotFound) as refused:
            call(request={**WHICH, **what})
        assert refused.value.errors[0]["message"] == f"The resource '{message}' was not found"


def test_an_operation_that_is_not_there_is_not_found(still_cloud: CloudBox) -> None:
    with pytest.raises(NotFound):
        Clients(still_cloud.url).operation("operation-1")


# -- google-api-python-client -----------------------------------------------------------------------------------------


def test_googles_other_client_agrees(cloud: CloudBox) -> None:
    api = discovery_client(cloud.url)
    instances = api.instances()
    limit = {
        "maxRunDuration": {"seconds": "3600"},
        "instanceTerminationAction": "STOP",
        "onHostMaintenance": "TERMINATE",
    }

    def wait(operation: dict[str, Any]) -> dict[str, Any]:
        return api.zoneOperations().wait(**WHERE, operation=operation["name"]).execute()

    assert wait(instances.setScheduling(**WHICH, body=limit).execute())["status"] == "DONE"
    stale = {
        "items": [{"key": "a", "value": "b"}],
        "fingerprint": instances.get(**WHICH).execute()["metadata"]["fingerprint"],
    }
    assert "error" not in wait(instances.setMetadata(**WHICH, body=stale).execute())
    with pytest.raises(HttpError) as refused:
        instances.setMetadata(**WHICH, body=stale).execute()
    assert refused.value.resp.status == 412
    assert "error" not in wait(instances.start(**WHICH).execute())
    up = instances.get(**WHICH).execute()
    assert (up["status"], up["scheduling"]["maxRunDuration"]) == ("RUNNING", {"seconds": "3600"})
    assert up["resourceStatus"]["scheduling"]["terminationTimestamp"]
    assert instances.aggregatedList(project="demo-project").execute()["items"]["zones/us-central1-a"]["instances"] == [
        up
    ]
    assert "error" not in wait(instances.stop(**WHICH).execute())
    cloud.fault("stockout-details")
    failed = wait(instances.start(**WHICH).execute())
    assert failed["error"]["errors"][0]["code"] == "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"
    assert api.projects().get(project="demo-project").execute()["name"] == "demo-project"


# -- what no client would send ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["setMetadata", "setScheduling", "testIamPermissions"])
@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b"7", b'{"nonsense": 1}', b"[" * 100_000, b"\xff\xfe"])
def test_a_malformed_body_gets_400_in_googles_frame(still_cloud: CloudBox, verb: str, body: bytes) -> None:
    answer = httpx.post(f"{still_cloud.url}{INSTANCE}/{verb}", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == 400


def test_a_body_without_end_is_refused(still_cloud: CloudBox) -> None:
    answer = httpx.post(f"{still_cloud.url}{INSTANCE}/setMetadata", content=b" " * (3 * 1024 * 1024))
    assert answer.status_code == 413


@pytest.mark.parametrize("query", ["port=5", "port=x", "start=x"])
def test_a_serial_port_that_cannot_be_is_refused(still_cloud: CloudBox, query: str) -> None:
    start(still_cloud)
    assert httpx.get(f"{still_cloud.url}{INSTANCE}/serialPort?{query}").status_code == 400


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/compute/v1/x"), ("POST", f"{INSTANCE}/explode"), ("PUT", INSTANCE)]
)
def test_a_call_that_is_not_there_gets_html_as_from_google(still_cloud: CloudBox, method: str, path: str) -> None:
    answer = httpx.request(method, still_cloud.url + path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")


def test_a_bad_gateway_answers_in_html(still_cloud: CloudBox) -> None:
    still_cloud.fault("bad-gateway")
    answer = httpx.get(still_cloud.url + INSTANCE)
    assert (answer.status_code, answer.headers["content-type"][:9]) == (502, "text/html")


@pytest.mark.parametrize("kind", REFUSALS)
def test_every_refusal_on_demand_speaks_googles_frame(still_cloud: CloudBox, kind: str) -> None:
    still_cloud.fault(kind, verb="get")
    answer = httpx.get(still_cloud.url + INSTANCE)
    assert not list(error_violations(answer.status_code, answer.json()))


def test_a_web_page_elsewhere_can_not_start_the_machine(still_cloud: CloudBox) -> None:
    answer = httpx.post(f"{still_cloud.url}{INSTANCE}/start", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert not still_cloud.world.operations


# -- the judge itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instance", "wrong"),
    [
        ({"id": 1}, "Instance.id: 1 is not a string"),
        ({"id": "-1"}, "Instance.id: '-1' is no uint64"),
        ({"status": "ON"}, "Instance.status: 'ON' is none of"),
        ({"colour": "red"}, "Instance.colour: no such field"),
        ({"disks": []}, "Instance.disks: an empty array"),
        ({"disks": [{"boot": "yes"}]}, "Instance.disks[0].boot: 'yes' is not a boolean"),
        ({"metadata": {"fingerprint": "?"}}, "Instance.metadata.fingerprint: '?' is not base64"),
        ({"lastStartTimestamp": "2026-11-23T12:00:00Z"}, "Instance.lastStartTimestamp: "),
        ({"labels": {"a": 1}}, "Instance.labels.a: 1 is not a string"),
    ],
)
def test_the_judge_sees_what_is_wrong(instance: dict[str, Any], wrong: str) -> None:
    (found,) = violations(instance, {"$ref": "Instance"})
    assert found.startswith(wrong)


def test_the_judge_knows_which_calls_there_are() -> None:
    assert [found and found.name for found in (method_of("GET", INSTANCE), method_of("POST", f"{INSTANCE}/start"))] == [
        "instances.get",
        "instances.start",
    ]
    assert method_of("GET", f"{INSTANCE}/explode") is None


@pytest.mark.parametrize(
    ("http", "path", "query", "body", "wrong"),
    [
        ("POST", f"{INSTANCE}/start", [("request", "1")], b"", "query: request is no parameter of instances.start"),
        ("GET", INSTANCE, [("alt", "yaml")], b"", "query.alt: 'yaml' is none of"),
        ("GET", f"{INSTANCE}/serialPort", [("port", "one")], b"", "query.port: 'one' is no"),
        ("POST", f"{INSTANCE}/detachDisk", [], b"", "query: deviceName is missing"),
        ("POST", f"{INSTANCE}/start", [], b"{}", "a body, which instances.start has not"),
        (
            "POST",
            f"{INSTANCE}/setMachineType",
            [],
            b'{"type": "x"}',
            "InstancesSetMachineTypeRequest.type: no such field",
        ),
        ("POST", f"{INSTANCE}/attachDisk", [], b'{"boot": "yes"}', "AttachedDisk.boot: 'yes' is not a boolean"),
        ("POST", f"{INSTANCE}/attachDisk", [], b'{"mode": "WRITE"}', "AttachedDisk.mode: 'WRITE' is none of"),
    ],
)
def test_the_judge_sees_what_is_wrong_with_a_call(
    http: str, path: str, query: list[tuple[str, str]], body: bytes, wrong: str
) -> None:
    method = method_of(http, path)
    assert method
    (found,) = call_violations(method, query, body)
    assert found.startswith(wrong)
