"""What Compute Engine has on offer, as facts: kinds of machines, GPUs and disks, and the images to boot from.

Sizes: https://cloud.google.com/compute/docs/machine-resource and /compute/docs/gpus.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from comfyweb.demo.model import Refusal


@dataclass(frozen=True, slots=True)
class MachineType:
    """A size of machine; the A2 and G2 families bring their GPUs along."""

    name: str
    cpus: int
    memory_mb: int
    accelerator: str = ""
    accelerators: int = 0

    @property
    def family(self) -> str:
        """`n1`, `g2` and the like."""
        return self.name.partition("-")[0]


MACHINE_TYPES: Mapping[str, MachineType] = {
    each.name: each
    for each in (
        MachineType("e2-medium", 2, 4096),
        MachineType("e2-standard-4", 4, 16384),
        MachineType("n1-standard-1", 1, 3840),
        MachineType("n1-standard-2", 2, 7680),
        MachineType("n1-standard-4", 4, 15360),
        MachineType("n1-standard-8", 8, 30720),
        MachineType("n1-highmem-8", 8, 53248),
        MachineType("n1-standard-16", 16, 61440),
        MachineType("g2-standard-4", 4, 16384, "nvidia-l4", 1),
        MachineType("g2-standard-8", 8, 32768, "nvidia-l4", 1),
        MachineType("a2-highgpu-1g", 12, 87040, "nvidia-tesla-a100", 1),
    )
}


@dataclass(frozen=True, slots=True)
class AcceleratorType:
    """A GPU: the most that one machine may have, and the name of the quota for it."""

    name: str
    words: str
    most: int
    metric: str


ACCELERATOR_TYPES: Mapping[str, AcceleratorType] = {
    each.name: each
    for each in (
        AcceleratorType("nvidia-l4", "NVIDIA L4", 8, "NVIDIA_L4_GPUS"),
        AcceleratorType("nvidia-tesla-a100", "NVIDIA A100 40GB", 16, "NVIDIA_A100_GPUS"),
        AcceleratorType("nvidia-tesla-p100", "NVIDIA Tesla P100", 4, "NVIDIA_P100_GPUS"),
        AcceleratorType("nvidia-tesla-t4", "NVIDIA T4", 4, "NVIDIA_T4_GPUS"),
        AcceleratorType("nvidia-tesla-v100", "NVIDIA V100", 8, "NVIDIA_V100_GPUS"),
    )
}

DISK_TYPES: Mapping[str, str] = {
    "pd-balanced": "Balanced Persistent Disk",
    "pd-ssd": "SSD Persistent Disk",
    "pd-standard": "Standard Persistent Disk",
}
"""With what people call them."""

SMALLEST_DISK_GB, LARGEST_DISK_GB = 10, 65536
IMAGE_GB = 10
GPU_FAMILIES = frozenset({"n1"})
"""The families to which a GPU can be added."""


def machine_type(name: str, zone_path: str) -> MachineType:
    """Find a size of machine in a zone. Raises `Refusal`."""
    if name not in MACHINE_TYPES:
        raise Refusal.not_found(f"{zone_path}/machineTypes/{name}")
    return MACHINE_TYPES[name]


def accelerator_type(name: str, zone_path: str) -> AcceleratorType:
    """Find a GPU in a zone. Raises `Refusal`."""
    if name not in ACCELERATOR_TYPES:
        raise Refusal.not_found(f"{zone_path}/acceleratorTypes/{name}")
    return ACCELERATOR_TYPES[name]


def disk_type(name: str, zone_path: str) -> str:
    """Find a kind of disk in a zone; return its name. Raises `Refusal`."""
    if name not in DISK_TYPES:
        raise Refusal.not_found(f"{zone_path}/diskTypes/{name}")
    return name
