"""What people see: one frozen picture of the machine, pushed to every tab and answered by REST when it changes."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from comfyweb.machine.cost import price
from comfyweb.machine.decide import UP, current_host
from comfyweb.machine.faults import NOT_LOOKED_YET
from comfyweb.machine.guards import latest_end
from comfyweb.machine.model import (
    Decision,
    Ending,
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
from comfyweb.machine.reach import (
    CLOUDFLARE_UPLOAD_MB,
    Networks,
    certificate_facts,
    certificate_words,
    hidden,
    name_words,
    unknown_name_words,
)
from comfyweb.machine.stops import ANNOUNCEMENTS, WORDS

# The host's names for its steps, as a person would say them; a name that is not here is shown as it is.
STEPS = {
    "packages": "System packages are there",
    "disk": "The disk is mounted",
    "driver": "The graphics driver loads",
    "comfyui-install": "ComfyUI is installed",
    "gate": "The gate opens",
    "comfyui": "ComfyUI starts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the machine is and how a browser reaches ComfyUI on it; from the settings.

    `comfyui_url` is empty when it follows the machine's external IP. `embed` says whether the page may frame it, and
    `embed_words` why not; `same_site` whether every browser then runs it there. `host_version` is that of the host
    software that the app brings along, and `host_renewed` whether the app itself puts it on the machine.
    `name` is ComfyUI's host name where it should lead to the machine; with `cloudflare` by way of Cloudflare, whose
    networks are `proxies`.
    """

    project: str
    zone: str
    instance: str
    comfyui_url: str = ""
    embed: bool = True
    embed_words: str = ""
    same_site: bool = True
    idle_minutes: float = 30
    drain_minutes: float = 30
    session_cap: timedelta = timedelta(hours=10)
    notices: tuple[str, ...] = ()
    host_version: str = ""
    host_renewed: bool = True
    name: str = ""
    proxies: Networks = ()
    cloudflare: bool = False


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
            "same_site": place.same_site,
            "certificate": _certificate(host),
            "upload_limit_mb": CLOUDFLARE_UPLOAD_MB if _by_cloudflare(host, seen, place) else None,
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
            "longest_run_minutes": math.ceil(place.session_cap / timedelta(minutes=1)),
            "run": _run(seen, place),
            "boot": _boot(decision.phase, machine, host, intent, seen.run, history),
            "queue": _queue(host),
            "stops_at": _text(host.stops_at) if host else "",
            "ending": _ending(decision.ending),
            "drain": _drain(decision, intent, host, place),
            "wanted": intent.wanted.value if intent else "",
            "stop_mode": intent.mode.value if intent and intent.wanted.value == "off" else "",
            "fault": _fault(decision.fault or history.refused, decision.retry_at),
            "last_stop": _last_stop(history.last_run),
            "notices": [*history.notices, *_notices(machine, host, seen, place, now)],
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


def _fault(fault: Fault | None, retry_at: datetime | None = None) -> dict[str, Any] | None:
    if fault is None:
        return None
    return {
        "code": fault.code,
        "title": fault.title,
        "what": fault.what,
        "todo": fault.todo,
        "passes": fault.passes,
        "retry": bool(fault.retry),
        "retry_at": _text(retry_at),
    }


def _ending(ending: Ending | None) -> dict[str, str] | None:
    """Tell of a guard's stop to the minute: what counts up to it is measured anew at each look."""
    if ending is None:
        return None
    minute = ending.at.replace(second=0, microsecond=0)
    return {
        "reason": ending.guard.value.removeprefix("guard:"),
        "at": _text(minute if minute == ending.at else minute + timedelta(minutes=1)),
        "words": ANNOUNCEMENTS[ending.guard],
    }


def _run(seen: Observation, place: Place) -> dict[str, Any] | None:
    run = seen.run
    if run is None:
        return None
    return {
        "started_at": _text(run.started_at),
        "ready_at": _text(run.ready_at),
        "ours": run.ours,
        "ends_at": _text(latest_end(seen, place.session_cap)),
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


def _drain(decision: Decision, intent: Intent | None, host: HostSeen | None, place: Place) -> dict[str, Any] | None:
    if decision.phase is not Phase.DRAINING:
        return None
    until = host.drain_until if host else None
    if until is None and decision.ending is not None:
        until = decision.ending.at
    elif until is None and intent is not None:
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


def _certificate(host: HostSeen | None) -> dict[str, Any] | None:
    if host is None or host.certificate is None:
        return None
    said = host.certificate
    return {
        "mode": said.mode,
        "trusted": said.trusted,
        "name": said.name,
        "until": _text(said.until),
        "words": certificate_facts(said),
    }


def _by_cloudflare(host: HostSeen | None, seen: Observation, place: Place) -> bool:
    """Tell whether what browsers send goes by way of Cloudflare."""
    told = host is not None and host.certificate is not None and host.certificate.mode == "cloudflare"
    seen_so = seen.name is not None and hidden(seen.name.addresses or (), place.proxies)
    return place.cloudflare or told or seen_so


def _notices(
    machine: MachineSeen | None, host: HostSeen | None, seen: Observation, place: Place, now: datetime
) -> tuple[str, ...]:
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
            why = f" ({seen.unheard.rstrip('.')})" if seen.unheard else ""
            notices.append(f"ComfyUI's address cannot be reached from here{why}; what is shown came by way of Google.")
        notices += _on_the_way(machine, host, seen, place, now)
    if host is not None:
        notices += _other_version(host, place)
        notices += host.warnings
    return tuple(notices)


def _on_the_way(
    machine: MachineSeen, host: HostSeen | None, seen: Observation, place: Place, now: datetime
) -> list[str]:
    """Say what keeps browsers from a ComfyUI that has a name: where that leads, who knows it, and the certificate."""
    words: list[str] = []
    if seen.name is not None and machine.last_started is not None:
        words.append(
            name_words(
                seen.name,
                machine.external_ip,
                place.proxies,
                up_for=now - machine.last_started,
                heard=host is not None and host.by_https,
                origin_certificate=place.cloudflare,
            )
        )
    if not place.comfyui_url:
        words.append(unknown_name_words(machine.metadata.get("domain_name", ""), place.instance))
    if host is not None:
        words.append(certificate_words(host.certificate, place.name, now))
    return [said for said in words if said]


def _other_version(host: HostSeen, place: Place) -> tuple[str, ...]:
    """Say that the machine runs another host software than this app's; by guest attributes it doesn't tell which."""
    if not host.host_version or not place.host_version or host.host_version == place.host_version:
        return ()
    todo = (
        "It is renewed when the machine is next started."
        if place.host_renewed
        else "Put this app's own (`make host-bundle`) where STARTUP_SCRIPT_URL points, then start the machine again."
    )
    return (f"The machine runs host software {host.host_version}, this app brings {place.host_version}. {todo}",)
