"""The cloud that production needs, in a container of its own."""

from collections.abc import Iterator

import pytest

from tests.container.docker import Container, published
from tests.launching import free_ports


@pytest.fixture(scope="module")
def cloud() -> Iterator[tuple[Container, int]]:
    """Run the emulated Compute Engine. Port 3000 of its network is for an app beside it, published at another."""
    port = free_ports(1)
    with Container(published(port, inside=3000), command=("python", "-m", "comfyweb.demo", "--fast")) as container:
        yield container, port
