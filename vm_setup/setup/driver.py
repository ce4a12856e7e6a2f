"""The graphics card and its driver: a clear word when they are not as they must be.

What the kernel shows is read first: it costs nothing, while `nvidia-smi` takes a second or more to load the driver.
"""

from vm_setup.base import files
from vm_setup.host.boot import DRIVER
from vm_setup.setup.steps import Steps
from vm_setup.setup.system import NOT_FOUND, TIMED_OUT, System

_NVIDIA = "0x10de"
_DISPLAY_CLASSES = ("0x0300", "0x0302")  # VGA and 3D controllers, in PCI's list of classes
_PATIENCE_SECONDS = 30


def has_card(system: System) -> bool:
    """Whether an NVIDIA card is plugged in, driver or not."""
    devices = (system.paths.kernel / "sys/bus/pci/devices").glob("*")
    return any(
        files.read(device / "vendor").strip() == _NVIDIA
        and files.read(device / "class").strip().startswith(_DISPLAY_CLASSES)
        for device in devices
    )


def check(system: System, steps: Steps) -> None:
    """Tell how the card and its driver are. Nothing here keeps ComfyUI from being tried."""
    loaded = files.read(system.paths.kernel / "proc/driver/nvidia/version")
    cards = [files.read(card) for card in (system.paths.kernel / "proc/driver/nvidia/gpus").glob("*/information")]
    names = [
        line.partition(":")[2].strip() for text in cards for line in text.splitlines() if line.startswith("Model:")
    ]
    if loaded and names:
        steps.done(DRIVER, ", ".join(names))
    elif not has_card(system):
        steps.failed(DRIVER, "The machine has no NVIDIA graphics card: ComfyUI runs on the processor, which is slow.")
    else:
        steps.failed(DRIVER, _trouble(system))


def _trouble(system: System) -> str:
    """Return why a card that is there can't be used."""
    asked = system.run(
        "nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader", timeout=_PATIENCE_SECONDS
    )
    if asked.code == NOT_FOUND:
        return (
            "The graphics card is there, but no NVIDIA driver is installed. Install one (Google's page `Install GPU "
            "drivers`), or make the machine from a Deep Learning VM image."
        )
    if asked.code == TIMED_OUT:
        return "The graphics driver does not answer (nvidia-smi hangs). Stop and start the machine."
    if asked.ok and asked.out.strip():
        return "The graphics driver answers, but the kernel shows no card with it. ComfyUI may start all the same."
    return f"The graphics driver does not work: {asked.words}"
