"""Snapshots of every phase, as `machine/snapshot.py` draws them."""

from datetime import UTC, datetime, timedelta
from typing import Any


def at(seconds: float) -> str:
    """Return the time that many seconds from now."""
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def body(phase: str, **changes: Any) -> dict[str, Any]:
    """Return the picture of a machine that is off, with these changes."""
    return {
        "phase": phase,
        "phase_since": at(-5),
        "status": "TERMINATED",
        "external_ip": "",
        "comfyui_url": "",
        "embed": True,
        "embed_words": "",
        "same_site": True,
        "certificate": None,
        "upload_limit_mb": None,
        "last_activity": "",
        "machine": {
            "project": "demo-project",
            "zone": "us-central1-a",
            "name": "comfyui-gpu",
            "type": "n1-standard-4",
            "accelerators": "1 × nvidia-tesla-t4",
        },
        "price_per_hour": "0.540",
        "price_source": "estimate: list prices",
        "currency": "USD",
        "idle_minutes": 30.0,
        "drain_minutes": 30.0,
        "longest_run_minutes": 600,
        "run": None,
        "boot": None,
        "queue": None,
        "stops_at": "",
        "ending": None,
        "drain": None,
        "wanted": "",
        "stop_mode": "",
        "fault": None,
        "last_stop": None,
        "notices": [],
    } | changes


def queue(running: int = 0, pending: int = 0, percent: float | None = None) -> dict[str, Any]:
    """Return what ComfyUI is at."""
    return {"running": running, "pending": pending, "percent": percent, "node": "", "comfyui_version": "0.33.0"}


def ready(url: str, **changes: Any) -> dict[str, Any]:
    """Return the picture of a machine in use."""
    run = {"started_at": "2026-11-23T20:00:00Z", "ready_at": "2026-11-23T20:01:40Z", "ours": True, "ends_at": ""}
    usual = {"status": "RUNNING", "comfyui_url": url, "run": run, "queue": queue(), "stops_at": at(1692)}
    return body("ready", **(usual | changes))


def step(name: str, state: str) -> dict[str, Any]:
    """Return a step of the start."""
    return {"name": name, "state": state, "expected_seconds": None, "detail": ""}


FAULT = {
    "code": "stockout",
    "title": "No T4 is free in us-central1-a",
    "what": "Compute Engine had none to give.",
    "todo": "Try again in a few minutes.",
    "passes": True,
    "retry": True,
    "retry_at": "",
}
