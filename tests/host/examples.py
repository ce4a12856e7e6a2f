"""One moment of a host, in several states; the messages made of it are `tests/fixtures/host/*.json`."""

import json
from pathlib import Path
from typing import Any

from vm_setup.host.drain import Drain
from vm_setup.host.idle import Idle
from vm_setup.host.messages import Certificate, Current, Hardware, Now, Report, Step, Work

FIXTURES = Path(__file__).parent.parent / "fixtures" / "host"
WALL = 1795478400.0  # 2026-11-24T00:00:00Z
BOOT = 1000.0
BOOT_ID = "b1946ac9-2492-4d23-8d3f-0b6f0c1a7e55"
VERSION = "0.33.0"
LIMIT = 1800.0


def fixture(name: str) -> Any:
    """Return the fixture of that name."""
    return json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))


def steps(*, done: int, running: bool) -> list[Step]:
    """Return the steps of a boot of which that many are done."""
    made: list[Step] = []
    for index, (name, expected, detail) in enumerate(
        [
            ("disk", 2.0, "Mounting the persistent disk"),
            ("driver", 20.0, "Loading the graphics driver"),
            ("gate", 3.0, "Opening the gate"),
            ("comfyui", 45.0, "Starting ComfyUI"),
        ]
    ):
        if index < done:
            made.append(Step(name=name, state="done", seconds=expected, expected_seconds=expected, detail=detail))
        elif index == done and running:
            made.append(Step(name=name, state="running", seconds=7.5, expected_seconds=expected, detail=detail))
        else:
            made.append(Step(name=name, expected_seconds=expected))
    return made


def report(**changes: Any) -> Report:
    """Return what a ready host with nothing to do reports, with those changes."""
    usual: dict[str, Any] = {
        "host_version": "0.1.0",
        "boot_id": BOOT_ID,
        "now": Now(boot=BOOT, wall=WALL),
        "steps": steps(done=4, running=False),
        "work": Work(ready=True, version=VERSION, running=0, pending=0),
        "hardware": Hardware(
            gpu_name="Tesla T4",
            gpu_memory_used_mib=1210,
            gpu_memory_total_mib=15360,
            disk_free_bytes=61203283968,
            disk_total_bytes=105089261568,
        ),
        "idle": Idle(limit=LIMIT, used=BOOT - 300, kind="input"),
        "certificate": Certificate(
            mode="letsencrypt", trusted=True, name="comfy.example.com", until="2027-02-10T00:00:00.000Z"
        ),
    }
    return Report(**{**usual, **changes})


def warming() -> Report:
    """Return what a host reports whose driver is loading."""
    idle = Idle(limit=LIMIT, used=BOOT - 30).hold("starting", until=BOOT + 2670, now=BOOT)
    return report(steps=steps(done=1, running=True), work=Work(), idle=idle)


def busy() -> Report:
    """Return what a host reports with a job running and two waiting."""
    current = Current(prompt_id="5f1c1f6e-6a3e-4d0c-9c0f-2f4f3c1f9a10", node="3", percent=42.5)
    work = Work(ready=True, version=VERSION, running=1, pending=2, current=current)
    return report(work=work, idle=Idle(limit=LIMIT, used=BOOT, kind="job", busy=True))


def draining() -> Report:
    """Return what that host reports once it was asked to stop gently."""
    clock = busy().idle.hold("extended", until=BOOT + 2400, now=BOOT)
    return report(
        work=busy().work, idle=clock, drain=Drain.start(1200, now=BOOT), warnings=["The disk is nearly full."]
    )
