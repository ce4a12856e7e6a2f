"""What people see: one frozen picture of the machine, pushed to every tab and answered by REST when it changes."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from comfyweb.machine.cost import price
from comfyweb.machine.decide import UP, current_host
from comfyweb.machine.faults import NOT_LOOKED_YET
from comfyweb.machine.model import (
    Decision,
    Fault,
    HostSeen,
    Intent,
    MachineSeen,
    Observation,
    Phase,
    Run,
    Step,
    StopReason,
)
from comfyweb.machine.stops import WORDS

# The host's names for its steps, as a person would say them; a name that is not here is shown as it is.
STEPS = {
    "disk": "The disk is mounted",
    "driver": "The graphics driver loads",
    "gate": "The gate opens",
    "comfyui": "ComfyUI starts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the machine is and how a browser reaches ComfyUI on it; from the settings.

    `comfyui_url` is empty when it follows the machine's external IP. `embed` says whether the page may frame it,
    and `embed_words` why not.
    """

    project: str
    zone: str
    instance: str
    comfyui_url: str = ""
    embed: bool = True
    embed_words: str = ""
    idle_minutes: float = 30
    drain_minutes: float = 30
    longest_run_minutes: int = 615
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the picture needs beside the present: the last run, the last refusal, how long starts took, notices."""

    last_run: Run | None = None
    refused: Fault | None = None
    usual_start: timedelta | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The picture. `phase` for the code that asks, `body` for everybody who looks: plain JSON values."""

    phase: Phase
    body: dict[str, Any]

    @property
    def comfyui_url(self) -> str:
        """ComfyUI's own address, or empty while there is none."""
        return str(self.body["comfyui_url"])


def picture(
    decision: Decision, intent: Intent | None, seen: Observation, place: Place, history: History, now: datetime
) -> Snapshot:
    """Compose the snapshot. Pure; holds no time of looking, so that it changes only when something did."""
    machine = seen.machine if isinstance(seen.machine, MachineSeen) else None
    host = current_host(seen, now)
    estimate = price(machine.machine_type, machine.accelerators) if machine and not machine.preemptible else None
    return Snapshot(
        phase=decision.phase,
        body={
            "phase": decision.phase.value,
            "phase_since": _text(seen.since),
            "status": machine.status if machine else "",
            "external_ip": machine.external_ip if machine else "",
            "comfyui_url": address(machine, place),
            "embed": place.embed,
            "embed_words": place.embed_words,
            "last_activity": _text(host.last_activity) if host else "",
            "machine": {
                "project": place.project,
                "zone": machine.zone if machine else place.zone,
                "name": place.instance,
                "type": machine.machine_type if machine else "",
                "accelerators": _accelerators(machine),
            },
            "price_per_hour": str(estimate.per_hour) if estimate else "",
            "price_source": estimate.source if estimate else "",
            "currency": estimate.currency if estimate else "",
            "idle_minutes": place.idle_minutes,
            "drain_minutes": place.drain_minutes,
            "longest_run_minutes": place.longest_run_minutes,
            "run": _run(machine, seen.run),
            "boot": _boot(decision.phase, machine, host, intent, seen.run, history),
            "queue": _queue(host),
            "stops_at": _text(host.stops_at) if host else "",
            "drain": _drain(decision.phase, intent, host, place),
            "wanted": intent.wanted.value if intent else "",
            "stop_mode": intent.mode.value if intent and intent.wanted.value == "off" else "",
            "fault": _fault(decision.fault or history.refused),
            "last_stop": _last_stop(history.last_run),
            "notices": [*history.notices, *_notices(machine, host, seen, place)],
        },
    )


def troubled(snapshot: Snapshot, fault: Fault) -> Snapshot:
    """Return the same picture with this fault in it: what is shown may be old, and people must know."""
    return Snapshot(phase=snapshot.phase, body=snapshot.body | {"fault": _fault(fault)})


def nothing_seen_yet(place: Place) -> Snapshot:
    """Return the picture before the first look."""
    blank = Decision(phase=Phase.FAULT, fault=NOT_LOOKED_YET, machine_every=timedelta(seconds=2))
    return picture(blank, None, Observation(), place, History(), datetime.min.replace(tzinfo=UTC))


def address(machine: MachineSeen | None, place: Place) -> str:
    """Return ComfyUI's address: the configured one, or `http://IP`, and empty while the machine is off."""
    if machine is None or machine.status not in UP:
        return ""
    if place.comfyui_url:
        return place.comfyui_url
    return f"http://{machine.external_ip}" if machine.external_ip else ""


def _text(at: datetime | None) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z") if at else ""


def _accelerators(machine: MachineSeen | None) -> str:
    return ", ".join(f"{count} × {kind}" for kind, count in machine.accelerators) if machine else ""


def _fault(fault: Fault | None) -> dict[str, Any] | None:
    if fault is None:
        return None
    return {
        "code": fault.code,
        "title": fault.title,
        "what": fault.what,
        "todo": fault.todo,
        "passes": fault.passes,
        "retry": fault.retry,
    }


def _run(machine: MachineSeen | None, run: Run | None) -> dict[str, Any] | None:
    if run is None:
        return None
    return {
        "started_at": _text(run.started_at),
        "ready_at": _text(run.ready_at),
        "ours": run.ours,
        "ends_at": _text(machine.terminates_at) if machine else "",
    }


def _queue(host: HostSeen | None) -> dict[str, Any] | None:
    if host is None or host.queue_running is None:
        return None
    return {
        "running": host.queue_running,
        "pending": host.queue_pending,
        "percent": host.percent,
        "node": host.node,
        "comfyui_version": host.comfyui_version,
    }


def _drain(phase: Phase, intent: Intent | None, host: HostSeen | None, place: Place) -> dict[str, Any] | None:
    if phase is not Phase.DRAINING:
        return None
    until = host.drain_until if host else None
    if until is None and intent is not None:
        until = intent.asked_at + timedelta(minutes=place.drain_minutes)
    return {"until": _text(until), "remaining": host.drain_remaining if host else None}


def _last_stop(run: Run | None) -> dict[str, str] | None:
    if run is None or run.ended_at is None:
        return None
    reason = run.reason or StopReason.ELSEWHERE
    return {"at": _text(run.ended_at), "reason": reason.value, "words": WORDS[reason]}


def _boot(
    phase: Phase,
    machine: MachineSeen | None,
    host: HostSeen | None,
    intent: Intent | None,
    run: Run | None,
    history: History,
) -> dict[str, Any] | None:
    if phase not in {Phase.STARTING, Phase.BOOTING}:
        return None
    began = intent.asked_at if intent else (run.asked_at or run.started_at) if run else None
    up = machine is not None and machine.status in UP
    steps = [
        Step(name="Compute Engine provides the machine", state="done" if up else "running"),
        Step(name="The system boots", state=("done" if host else "running") if up else "waiting"),
    ]
    if host is not None and host.steps:
        steps += host.steps
    else:
        steps.append(Step(name="comfyui", state="running" if host else "waiting"))
    return {
        "began_at": _text(began),
        "percent": round(100 * sum(s.state == "done" for s in steps) / len(steps)),
        "expected_seconds": round(history.usual_start.total_seconds()) if history.usual_start else None,
        "steps": [
            {"name": STEPS.get(s.name, s.name), "state": s.state, "detail": "" if s.state == "done" else s.detail}
            for s in steps
        ],
    }


def _notices(machine: MachineSeen | None, host: HostSeen | None, seen: Observation, place: Place) -> tuple[str, ...]:
    notices = list(place.notices)
    if machine is not None and machine.status in UP:
        if machine.terminates_at is None and machine.scheduling.max_run_seconds is None:
            notices.append(
                "This machine was started elsewhere: Compute Engine has no longest run for it, "
                "so that last guard against a forgotten machine is missing until its next start."
            )
        if host is None and seen.run is not None and seen.run.ready_at is not None:
            notices.append("The machine's own software has not answered for a while. It may be busy or broken.")
        if host is not None and not host.by_https:
            notices.append("ComfyUI's address cannot be reached from here; what is shown came by way of Google.")
    if host is not None:
        notices += host.warnings
    return tuple(notices)
