"""A machine's whole life by apache-libcloud's Compute Engine driver, which nobody at Google or here has written."""

from typing import Any

import pytest
from libcloud.common.google import GoogleBaseError, QuotaExceededError, ResourceInUseError, ResourceNotFoundError
from libcloud.compute.drivers import gce

from tests.cloudbox import CloudBox


class Token:
    """libcloud's own would ask Google's token server."""

    default_credential_file = ""
    access_token = "anonymous"

    def __init__(self, *_what: object, **_more: object) -> None:
        pass


@pytest.fixture
def driver(cloud: CloudBox, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The driver, pointed at the emulator in the one way there is: its connection knows Google's address alone."""
    init = gce.GCEConnection.__init__

    def pointed(self: Any, *args: Any, **more: Any) -> None:
        init(self, *args, **more)
        self.host, self.port, self.secure = "127.0.0.1", cloud.port, False

    monkeypatch.setattr("libcloud.common.google.GoogleOAuth2Credential", Token)
    monkeypatch.setattr(gce, "GoogleOAuth2Credential", Token)
    monkeypatch.setattr(gce.GCEConnection, "__init__", pointed)
    monkeypatch.setattr(gce.GCEConnection, "poll_interval", 0.02)
    made: Any = gce.GCENodeDriver("nobody", "no-key", project="demo-project", datacenter="us-central1-a")
    return made


def test_it_finds_what_there_is(driver: Any) -> None:
    assert [(node.name, node.state) for node in driver.list_nodes()] == [("comfyui-gpu", "stopped")]
    assert sorted(volume.name for volume in driver.list_volumes()) == ["comfyui", "comfyui-gpu"]
    assert "n1-standard-4" in [size.name for size in driver.list_sizes()]
    assert [zone.name for zone in driver.ex_list_zones()] == ["us-central1-a", "us-central1-b", "us-central1-c"]
    (region,) = driver.ex_list_regions()
    assert region.name == "us-central1"
    quotas = {quota["metric"]: quota for quota in region.quotas}
    assert quotas["NVIDIA_T4_GPUS"] == {"metric": "NVIDIA_T4_GPUS", "limit": 4.0, "usage": 0.0}


def test_it_leads_a_whole_life(driver: Any) -> None:
    models = driver.create_volume(20, "models", ex_disk_type="pd-ssd")
    boot = driver.create_volume(50, "third", ex_disk_type="pd-balanced")
    node = driver.create_node(
        "third",
        "n1-standard-4",
        None,
        ex_boot_disk=boot,
        ex_accelerator_type="nvidia-tesla-t4",
        ex_accelerator_count=1,
        ex_on_host_maintenance="TERMINATE",
        ex_labels={"of": "comfyweb"},
        ex_metadata={"domain_name": "comfy.example.com"},
    )
    assert node.state == "running"
    assert len(node.public_ips) == 1
    assert driver.attach_volume(node, models)
    assert [link.rpartition("/")[2] for link in driver.ex_get_volume("models").extra["users"]] == ["third"]
    snapshot = driver.create_volume_snapshot(models, "models-1")
    assert [(each.name, each.size) for each in driver.ex_list_snapshots()] == [("models-1", "20")]
    assert driver.detach_volume(models, node)
    address = driver.ex_create_address("front", region="us-central1")
    assert driver.ex_stop_node(node)
    node = driver.ex_get_node("third")
    assert node.state == "stopped"
    assert driver.ex_set_machine_type(node, "n1-standard-8")
    assert driver.ex_delete_access_config(node, "External NAT", "nic0")
    assert driver.ex_add_access_config(node, "External NAT", "nic0", nat_ip=address.address)
    assert driver.ex_set_node_labels(driver.ex_get_node("third"), {"of": "somebody"})
    assert driver.ex_start_node(node)
    node = driver.ex_get_node("third")
    assert (node.state, node.public_ips, node.size) == ("running", [address.address], "n1-standard-8")
    assert node.extra["labels"] == {"of": "somebody"}
    assert [item["key"] for item in node.extra["metadata"]["items"]] == ["domain_name"]
    assert driver.destroy_node(node)
    assert [driver.destroy_volume(models), snapshot.destroy(), driver.ex_destroy_address(address)] == [True] * 3
    assert [node.name for node in driver.list_nodes()] == ["comfyui-gpu"]
    assert sorted(volume.name for volume in driver.list_volumes()) == ["comfyui", "comfyui-gpu"]
    assert driver.ex_list_addresses() == driver.ex_list_snapshots() == []


def test_it_understands_what_goes_wrong(driver: Any, cloud: CloudBox) -> None:
    (node,) = driver.list_nodes()
    with pytest.raises(ResourceNotFoundError):
        driver.ex_get_node("nobody")
    cloud.fault("stockout")
    with pytest.raises(GoogleBaseError) as full:
        driver.ex_start_node(node)
    assert full.value.code == "ZONE_RESOURCE_POOL_EXHAUSTED"
    cloud.control("quota", {"metric": "GPUS_ALL_REGIONS", "limit": 0})
    with pytest.raises(QuotaExceededError, match=r"Limit: 0\.0 globally"):
        driver.ex_start_node(node)
    cloud.control("machine", {"action": "create", "name": "other"})
    with pytest.raises(ResourceInUseError, match=r"disks/comfyui' is already being used by '.*/comfyui-gpu'"):
        driver.attach_volume(driver.ex_get_node("other"), driver.ex_get_volume("comfyui"))
    with pytest.raises(GoogleBaseError) as used:
        driver.destroy_volume(driver.ex_get_volume("comfyui"))
    assert used.value.code == "resourceInUseByAnotherResource"
