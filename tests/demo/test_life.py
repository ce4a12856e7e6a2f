"""A machine's whole life by Google's generic client, and that no call of the emulator's was left out on the way."""

import json
from typing import Any

import httpx
import pytest
from googleapiclient.errors import HttpError

from comfyweb.demo.methods import METHODS
from tests.cloudbox import CloudBox
from tests.demo.conftest import WHERE, discovery_client
from tests.demo.discovery import document
from tests.demo.extract import TARGET, text

PROJECT: dict[str, Any] = {"project": "demo-project"}
REGION: dict[str, Any] = {**PROJECT, "region": "us-central1"}
NODE: dict[str, Any] = {**WHERE, "instance": "second"}

REQUIRED = {
    *(f"instances.{name}" for name in ("insert", "delete", "attachDisk", "detachDisk", "setMachineType", "setLabels")),
    *("instances.addAccessConfig", "instances.deleteAccessConfig"),
    *(f"addresses.{name}" for name in ("aggregatedList", "delete", "get", "insert", "list")),
    *(f"disks.{name}" for name in ("aggregatedList", "createSnapshot", "delete", "get", "insert", "list", "resize")),
    *(f"snapshots.{name}" for name in ("delete", "get", "list")),
    *(f"{name}.{verb}" for name in ("regions", "zones") for verb in ("get", "list")),
    *(f"{name}Types.{verb}" for name in ("accelerator", "machine") for verb in ("aggregatedList", "get", "list")),
    *(f"{name}Operations.{verb}" for name in ("global", "region", "zone") for verb in ("get", "list", "wait")),
}


class Life:
    """Google's generic client, which waits for each operation where that operation is."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.api = discovery_client(url)

    def done(self, operation: dict[str, Any]) -> dict[str, Any]:
        which = {**PROJECT, "operation": operation["name"]}
        if "zone" in operation:
            found = self.api.zoneOperations().wait(**which, zone=operation["zone"].rpartition("/")[2]).execute()
        elif "region" in operation:
            found = self.api.regionOperations().wait(**which, region="us-central1").execute()
        else:
            found = self.api.globalOperations().wait(**which).execute()
        assert found["status"] == "DONE"
        return found

    def well(self, call: Any) -> dict[str, Any]:
        operation = self.done(call.execute())
        assert "error" not in operation, operation
        return operation

    def failed(self, call: Any) -> str:
        return self.done(call.execute())["error"]["errors"][0]["code"]


def look_around(life: Life) -> None:
    """Read all that there is, one by one and in lists."""
    api = life.api
    region = api.regions().get(**REGION).execute()
    assert api.regions().list(**PROJECT).execute()["items"] == [region]
    (first, *_others) = api.zones().list(**PROJECT).execute()["items"]
    assert api.zones().get(**WHERE).execute() == first
    assert api.networks().list(**PROJECT).execute()["items"] == [
        api.networks().get(**PROJECT, network="default").execute()
    ]
    for kind, name in (("machine", "n1-standard-8"), ("accelerator", "nvidia-l4"), ("disk", "pd-ssd")):
        types = getattr(api, f"{kind}Types")()
        found = types.get(**WHERE, **{f"{kind}Type": name}).execute()
        assert found in types.list(**WHERE).execute()["items"]
        everywhere = types.aggregatedList(**PROJECT).execute()["items"]
        assert found in everywhere["zones/us-central1-a"][f"{kind}Types"]
        assert len(everywhere) == 3


def make_things(life: Life) -> None:
    api = life.api
    life.well(
        api.disks().insert(
            **WHERE, body={"name": "models", "sizeGb": "20", "type": "zones/us-central1-a/diskTypes/pd-ssd"}
        )
    )
    life.well(api.disks().resize(**WHERE, disk="models", body={"sizeGb": "30"}))
    life.well(api.disks().createSnapshot(**WHERE, disk="models", body={"name": "models-1", "labels": {"of": "models"}}))
    snapshot = api.snapshots().get(**PROJECT, snapshot="models-1").execute()
    assert (snapshot["diskSizeGb"], snapshot["status"]) == ("30", "READY")
    assert api.snapshots().list(**PROJECT).execute()["items"] == [snapshot]
    copy = {"name": "models", "sourceSnapshot": snapshot["selfLink"]}
    life.well(api.disks().insert(**PROJECT, zone="us-central1-b", body=copy))
    copied = api.disks().get(**PROJECT, zone="us-central1-b", disk="models").execute()
    assert (copied["sizeGb"], copied["sourceSnapshotId"]) == ("30", snapshot["id"])
    assert [disk["name"] for disk in api.disks().list(**WHERE).execute()["items"]] == [
        "comfyui-gpu",
        "comfyui",
        "models",
    ]
    assert api.disks().aggregatedList(**PROJECT).execute()["items"]["zones/us-central1-b"]["disks"] == [copied]
    life.well(api.addresses().insert(**REGION, body={"name": "front", "description": "of the domain"}))
    assert api.addresses().get(**REGION, address="front").execute()["status"] == "RESERVED"


def make_a_machine(life: Life) -> None:
    body = {
        "name": "second",
        "machineType": "zones/us-central1-a/machineTypes/n1-standard-4",
        "disks": [
            {
                "boot": True,
                "autoDelete": True,
                "initializeParams": {
                    "sourceImage": "projects/debian-cloud/global/images/family/debian-12",
                    "diskSizeGb": "50",
                },
            },
            {"source": "zones/us-central1-a/disks/models", "deviceName": "persistent-comfyui"},
        ],
        "networkInterfaces": [
            {
                "network": "global/networks/default",
                "accessConfigs": [{"type": "ONE_TO_ONE_NAT", "name": "External NAT"}],
            }
        ],
        "guestAccelerators": [
            {"acceleratorType": "zones/us-central1-a/acceleratorTypes/nvidia-tesla-t4", "acceleratorCount": 1}
        ],
        "scheduling": {"onHostMaintenance": "TERMINATE", "automaticRestart": False},
        "metadata": {"items": [{"key": "domain_name", "value": "comfy.example.com"}]},
        "tags": {"items": ["http-server"]},
    }
    life.well(life.api.instances().insert(**WHERE, body=body))
    found = life.api.instances().get(**NODE).execute()
    assert (found["status"], len(found["disks"])) == ("RUNNING", 2)
    assert found["networkInterfaces"][0]["accessConfigs"][0]["natIP"]


def change_it(life: Life) -> None:
    instances = life.api.instances()
    found = instances.get(**NODE).execute()
    labels = {"labels": {"of": "comfyweb"}, "labelFingerprint": found["labelFingerprint"]}
    life.well(instances.setLabels(**NODE, body=labels))
    with pytest.raises(HttpError) as stale:
        instances.setLabels(**NODE, body=labels).execute()
    assert stale.value.resp.status == 412
    bigger = {"machineType": "zones/us-central1-a/machineTypes/n1-standard-8"}
    assert life.failed(instances.setMachineType(**NODE, body=bigger)) == "RESOURCE_NOT_READY"
    life.well(instances.stop(**NODE))
    life.well(instances.setMachineType(**NODE, body=bigger))
    life.well(instances.setScheduling(**NODE, body=found["scheduling"]))
    life.well(
        instances.setMetadata(
            **NODE,
            body={
                "fingerprint": found["metadata"]["fingerprint"],
                "items": [{"key": "enable-guest-attributes", "value": "TRUE"}],
            },
        )
    )
    life.well(instances.deleteAccessConfig(**NODE, accessConfig="External NAT", networkInterface="nic0"))
    address = life.api.addresses().get(**REGION, address="front").execute()["address"]
    access = {"name": "External NAT", "type": "ONE_TO_ONE_NAT", "natIP": address}
    life.well(instances.addAccessConfig(**NODE, networkInterface="nic0", body=access))
    life.well(instances.detachDisk(**NODE, deviceName="persistent-comfyui"))
    life.well(instances.attachDisk(**NODE, body={"source": "zones/us-central1-a/disks/models", "deviceName": "m"}))
    life.well(instances.start(**NODE))
    up = instances.get(**NODE).execute()
    assert up["networkInterfaces"][0]["accessConfigs"][0]["natIP"] == address
    assert up["machineType"].endswith("n1-standard-8")
    assert [disk["deviceName"] for disk in up["disks"]] == ["persistent-disk-0", "m"]
    assert life.api.addresses().list(**REGION).execute()["items"][0]["status"] == "IN_USE"
    listed = life.api.addresses().aggregatedList(**PROJECT).execute()["items"]["regions/us-central1"]["addresses"]
    assert [each["users"] for each in listed] == [[up["selfLink"]]]
    life.well(instances.reset(**NODE))
    assert "kernel" in instances.getSerialPortOutput(**NODE, port=1).execute()["contents"]
    with pytest.raises(HttpError):
        instances.getGuestAttributes(**NODE, queryPath="comfyweb/").execute()
    said = f"{life.url}/computeMetadata/v1/instance/guest-attributes/comfyweb/phase"
    assert httpx.put(said, content="ready", headers={"Metadata-Flavor": "Google"}).status_code == 200
    heard = instances.getGuestAttributes(**NODE, queryPath="comfyweb/").execute()["queryValue"]["items"]
    assert [(item["key"], item["value"]) for item in heard] == [("phase", "ready")]
    rules = instances.getEffectiveFirewalls(**NODE, networkInterface="nic0").execute()["firewalls"]
    assert "default-allow-ssh" in [rule["name"] for rule in rules]
    asked = {"permissions": ["compute.instances.attachDisk"]}
    assert instances.testIamPermissions(**WHERE, resource="second", body=asked).execute() == asked
    assert len(instances.list(**WHERE).execute()["items"]) == 2


def end_it(life: Life) -> None:
    api = life.api
    for call in (
        api.disks().delete(**WHERE, disk="models"),
        api.addresses().delete(**REGION, address="front"),
    ):
        with pytest.raises(HttpError) as refused:
            call.execute()
        details: Any = refused.value.error_details
        assert details[0]["reason"] == "resourceInUseByAnotherResource"
    life.well(api.instances().delete(**NODE))
    assert [disk["name"] for disk in api.disks().list(**WHERE).execute()["items"]] == [
        "comfyui-gpu",
        "comfyui",
        "models",
    ]
    life.well(api.disks().delete(**WHERE, disk="models"))
    life.well(api.snapshots().delete(**PROJECT, snapshot="models-1"))
    life.well(api.addresses().delete(**REGION, address="front"))
    for operations in (
        (api.zoneOperations(), WHERE),
        (api.regionOperations(), REGION),
        (api.globalOperations(), PROJECT),
    ):
        calls, where = operations
        newest = calls.list(**where).execute()["items"][0]
        assert newest["operationType"] == "delete"
        assert calls.get(**where, operation=newest["name"]).execute() == newest


def test_googles_generic_client_leads_a_whole_life_and_leaves_no_call_out(cloud: CloudBox) -> None:
    life = Life(cloud.url)
    assert life.api.projects().get(**PROJECT).execute()["name"] == "demo-project"
    look_around(life)
    make_things(life)
    make_a_machine(life)
    assert (
        len(life.api.instances().aggregatedList(**PROJECT).execute()["items"]["zones/us-central1-a"]["instances"]) == 2
    )
    change_it(life)
    end_it(life)
    assert cloud.examiner.seen == METHODS


def test_every_call_that_was_promised_is_routed_and_googles_own() -> None:
    assert REQUIRED <= METHODS
    known = {f"{name}.{verb}" for name, each in document()["resources"].items() for verb in each.get("methods", {})}
    assert known >= METHODS


def test_what_the_emulator_knows_of_the_calls_is_what_google_says() -> None:
    assert TARGET.read_text() == text(METHODS), "write it anew: python -m tests.demo.extract"
    assert json.loads(TARGET.read_text())["methods"].keys() == METHODS
