"""What the cloud consists of can be changed while it runs; and what Google's front would not let pass is refused."""

from typing import Any

import httpx
import pytest

from tests.cloudbox import CloudBox
from tests.demo.conftest import discovery_client

PROJECT = "/compute/v1/projects/demo-project"
INSTANCE = f"{PROJECT}/zones/us-central1-a/instances/comfyui-gpu"


def test_a_project_is_made_and_its_machines_are_its_own(still_cloud: CloudBox) -> None:
    said = still_cloud.control("project", {"name": "other-project", "zones": ["europe-west4-a"]})
    assert said["projects"]["other-project"]["machines"] == []
    still_cloud.control("machine", {"action": "create", "project": "other-project", "zone": "europe-west4-a"})
    api = discovery_client(still_cloud.url)
    (machine,) = api.instances().list(project="other-project", zone="europe-west4-a").execute()["items"]
    assert machine["selfLink"].endswith("/projects/other-project/zones/europe-west4-a/instances/comfyui-gpu")
    where = {"project": "other-project", "zone": "europe-west4-a"}
    operation = api.instances().start(**where, instance="comfyui-gpu").execute()
    still_cloud.advance(60)
    assert api.zoneOperations().get(**where, operation=operation["name"]).execute()["status"] == "DONE"
    elsewhere = f"{still_cloud.url}{PROJECT}/zones/us-central1-a/operations/{operation['name']}"
    assert httpx.get(elsewhere).status_code == 404
    still_cloud.control("preempt", {"project": "other-project", "zone": "europe-west4-a"})
    region = api.regions().get(project="other-project", region="europe-west4").execute()
    assert {"metric": "NVIDIA_T4_GPUS", "limit": 4.0, "usage": 1.0} in region["quotas"]


def test_a_quota_is_another_from_now_on(still_cloud: CloudBox) -> None:
    quota = {"metric": "NVIDIA_T4_GPUS", "region": "us-central1", "limit": 0}
    said = still_cloud.control("quota", quota)["projects"]["demo-project"]["quotas"]
    assert said["us-central1"]["NVIDIA_T4_GPUS"] == {"limit": 0, "usage": 0}
    api = discovery_client(still_cloud.url)
    where = {"project": "demo-project", "zone": "us-central1-a"}
    operation = api.instances().start(**where, instance="comfyui-gpu").execute()
    still_cloud.advance(60)
    failed = api.zoneOperations().get(**where, operation=operation["name"]).execute()["error"]["errors"][0]
    assert failed["message"] == "Quota 'NVIDIA_T4_GPUS' exceeded.  Limit: 0.0 in region us-central1."
    assert failed["errorDetails"][0]["quotaInfo"]["dimensions"] == {"region": "us-central1"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("project", {}, 400),
        ("project", {"name": "demo-project"}, 409),
        ("project", {"name": "other-project", "zones": "europe-west4-a"}, 400),
        ("project", {"name": "other-project", "zones": [7]}, 400),
        ("quota", {"metric": "WISHES", "limit": 3}, 400),
        ("quota", {"metric": "CPUS", "limit": 3}, 400),
        ("quota", {"metric": "CPUS", "region": "moon1", "limit": 3}, 400),
        ("quota", {"metric": "GPUS_ALL_REGIONS", "limit": -1}, 400),
        ("quota", {"metric": "GPUS_ALL_REGIONS", "limit": True}, 400),
        ("quota", {"metric": "GPUS_ALL_REGIONS", "limit": 1, "project": "nobody"}, 404),
        ("machine", {"action": "start", "project": "nobody"}, 404),
        ("machine", {"action": "start", "project": 7}, 400),
    ],
)
def test_what_cannot_be_is_refused(still_cloud: CloudBox, path: str, body: dict[str, Any], status: int) -> None:
    before = still_cloud.control("cloud", method="GET")
    assert httpx.post(f"{still_cloud.url}/control/{path}", json=body).status_code == status
    assert still_cloud.control("cloud", method="GET") == before


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("POST", f"{INSTANCE}/start?request=1", None, 'Unknown name "request"'),
        ("GET", f"{PROJECT}/zones?maxResults=x", None, "Invalid value at 'maxResults' (TYPE_UINT32)"),
        ("GET", f"{PROJECT}/zones?prettyPrint=yes", None, "Invalid value at 'prettyPrint' (TYPE_BOOL)"),
        ("POST", f"{INSTANCE}/detachDisk", None, "Required field 'deviceName' not specified"),
        ("POST", f"{INSTANCE}/attachDisk", {"disk": "x"}, 'Unknown name "disk": Cannot find field.'),
        ("POST", f"{INSTANCE}/attachDisk", {"boot": "yes"}, "Invalid value at 'boot' (TYPE_BOOL)"),
        ("POST", f"{INSTANCE}/attachDisk", {"guestOsFeatures": [{"kind": "x"}]}, "at 'guestOsFeatures[0]'"),
        ("POST", f"{INSTANCE}/attachDisk", {"guestOsFeatures": {}}, "expected a list"),
        ("POST", f"{INSTANCE}/setLabels", {"labels": {"a": 1}}, "Invalid value at 'labels.a' (TYPE_STRING)"),
        ("POST", f"{INSTANCE}/setLabels", {"labels": []}, "expected an object"),
        ("POST", f"{PROJECT}/zones/us-central1-a/disks", {"name": "x", "sizeGb": 10.5}, "(TYPE_INT64)"),
        ("POST", f"{PROJECT}/zones/us-central1-a/disks", {"name": "x", "sizeGb": "9" * 30}, "(TYPE_INT64)"),
    ],
)
def test_what_is_no_call_of_googles_is_400(
    still_cloud: CloudBox, method: str, path: str, body: object, words: str
) -> None:
    answer = httpx.request(method, still_cloud.url + path, json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert not still_cloud.world.operations


def test_a_null_says_nothing_and_a_number_may_be_text(still_cloud: CloudBox) -> None:
    url = f"{still_cloud.url}{PROJECT}/zones/us-central1-a/disks"
    for name, size in (("one", 20), ("two", "20")):
        assert httpx.post(url, json={"name": name, "sizeGb": size, "description": None}).status_code == 200
    still_cloud.advance(1)
    assert [disk["sizeGb"] for disk in httpx.get(f"{url}?filter=name!=comfyui").json()["items"]] == ["50", "20", "20"]
