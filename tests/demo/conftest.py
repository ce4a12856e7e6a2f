"""An emulator, and the two clients that Google makes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1
from googleapiclient.discovery import build

from tests.cloudbox import CloudBox

WHERE: dict[str, Any] = {"project": "demo-project", "zone": "us-central1-a"}
WHICH: dict[str, Any] = {**WHERE, "instance": "comfyui-gpu"}

HERE = Path(__file__).parent
PURE = frozenset({"test_any_estate", "test_estate", "test_input", "test_world"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the demo's own tests, but for its pure rules, out of the inner loop: they boot a machine each."""
    for item in items:
        if item.path.parent == HERE and item.path.stem not in PURE:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def cloud() -> Iterator[CloudBox]:
    """An emulator on the computer's clock, in which everything is quick."""
    with CloudBox() as box:
        yield box


@pytest.fixture
def still_cloud() -> Iterator[CloudBox]:
    """An emulator in which time stands still unless it is moved."""
    with CloudBox(manual=True) as box:
        yield box


class Clients:
    """Google's `google-cloud-compute`, pointed at an emulator."""

    def __init__(self, url: str) -> None:
        options = ClientOptions(api_endpoint=url)
        self.instances = compute_v1.InstancesClient(credentials=AnonymousCredentials(), client_options=options)
        self.operations = compute_v1.ZoneOperationsClient(credentials=AnonymousCredentials(), client_options=options)
        self.zones = compute_v1.ZonesClient(credentials=AnonymousCredentials(), client_options=options)

    def operation(self, name: str) -> compute_v1.Operation:
        return self.operations.get(**WHERE, operation=name)

    def get(self) -> compute_v1.Instance:
        return self.instances.get(**WHICH)


def discovery_client(url: str) -> Any:
    """Google's `google-api-python-client`, pointed at an emulator."""
    return build(
        "compute",
        "v1",
        credentials=AnonymousCredentials(),
        client_options=ClientOptions(api_endpoint=f"{url}/compute/v1/"),
        static_discovery=True,
    )
