"""What an hour of a machine costs: an estimate from a table of list prices, for the page's meter."""

from collections.abc import Sequence
from decimal import Decimal

from comfyweb.machine.model import Price

SOURCE = "estimate: on-demand list prices, us-central1, without disks and network (SkyPilot catalog v8 and v9, 2025-26)"

# US dollars an hour. Source: skypilot-org/skypilot-catalog, catalogs/v8 and v9, gcp/vms.csv, us-central1. The H100's
# figure is the us-east4 row, as the catalog's us-central1 row is below its own spot price.
MACHINES = {
    "n1-standard-4": Decimal("0.190"),
    "n1-standard-8": Decimal("0.380"),
    "g2-standard-4": Decimal("0.14679"),
    "g2-standard-8": Decimal("0.29358"),
    "g2-standard-16": Decimal("0.58716"),
    "a2-highgpu-1g": Decimal("0.73948"),
    "a3-highgpu-1g": Decimal("1.18251"),
}
ACCELERATORS = {
    "nvidia-tesla-t4": Decimal("0.35"),
    "nvidia-l4": Decimal("0.56004"),
    "nvidia-tesla-a100": Decimal("2.93391"),
    "nvidia-h100-80gb": Decimal("9.79655"),
}
# These machine types bring their GPU along; Compute Engine need not list it again.
BUILT_IN = {"g2": "nvidia-l4", "a2-highgpu-1g": "nvidia-tesla-a100", "a3-highgpu-1g": "nvidia-h100-80gb"}


def price(machine_type: str, accelerators: Sequence[tuple[str, int]]) -> Price | None:
    """Return the estimate for an on-demand machine, or None when the table doesn't know a part of it.

    Args:
        machine_type: Compute Engine's name, such as `n1-standard-4`.
        accelerators: type and count of each guest accelerator, such as `("nvidia-tesla-t4", 1)`.
    """
    host = MACHINES.get(machine_type)
    if host is None:
        return None
    if not accelerators:
        built_in = BUILT_IN.get(machine_type) or BUILT_IN.get(machine_type.split("-", maxsplit=1)[0])
        accelerators = [(built_in, 1)] if built_in else []
    total = host
    for kind, count in accelerators:
        each = ACCELERATORS.get(kind.removesuffix("-vws"))
        if each is None:
            return None
        total += each * count
    return Price(per_hour=total.quantize(Decimal("0.001")), source=SOURCE)
