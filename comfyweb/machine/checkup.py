"""What `python -m comfyweb doctor` finds at Google: each thing judged alone, in words, with what to do.

Pure. What can't be looked at is neither well nor ill: it is `NOT_CHECKED`, and the words say why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from comfyweb.machine.decide import UP
from comfyweb.machine.faults import lacking, named
from comfyweb.machine.firewall import Firewall, Open, opened
from comfyweb.machine.model import Fault, MachineMissing, MachineSeen, Quota

# Under this name the machine's guest looks for the disk that keeps models and outputs (docs/host.md).
DATA_DISK = "persistent-comfyui"
ACT_AS = "iam.serviceAccounts.actAs"
GPUS_ALL_REGIONS = "GPUS_ALL_REGIONS"
# Tokens of service accounts are refused by Google when they are made some minutes ahead or behind.
CLOCKS_AGREE, CLOCKS_DIFFER = timedelta(seconds=10), timedelta(minutes=1)

_CREDENTIALS = frozenset({"credentials-missing", "credentials-refused"})
_PROJECT = frozenset({"api-disabled", "billing", "place-not-found"})
_UNREACHED = frozenset(
    {"network", "network-name", "network-tls", "network-timeout", "bad-answer", "unavailable", "rate-limit"}
)
# Of the quotas, which aren't named like the GPU.
_METRICS = {"nvidia-h100-80gb": "NVIDIA_H100_GPUS", "nvidia-h100-mega-80gb": "NVIDIA_H100_MEGA_GPUS"}
_LOOKING_ONLY = (
    "To have it checked, give comfyweb's account the role Compute Viewer (roles/compute.viewer); running the machine "
    "does not need it."
)


class State(StrEnum):
    """How it is."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found of one thing. `check` is its name for programs; `todo` is empty when there is nothing to do."""

    check: str
    state: State
    words: str
    todo: str = ""


def ok(check: str, words: str) -> Finding:
    """Return that all is well."""
    return Finding(check=check, state=State.OK, words=words)


def not_checked(check: str, why: str, todo: str = "") -> Finding:
    """Return that nobody knows."""
    return Finding(check=check, state=State.NOT_CHECKED, words=why, todo=todo)


def by_fault(check: str, fault: Fault, *, failed: bool = True) -> Finding:
    """Return what a fault of Google's says."""
    state = State.FAILED if failed else State.NOT_CHECKED
    return Finding(check=check, state=state, words=fault.what, todo=fault.todo)


def unread(check: str, fault: Fault) -> Finding:
    """Return that something could not be read which running the machine doesn't need."""
    if fault.code == "permission":
        return not_checked(check, fault.what, _LOOKING_ONLY)
    return by_fault(check, fault, failed=False)


def credentials(fault: Fault | None) -> Finding:
    """Judge whether Google takes us for somebody, by the fault of a look at the machine."""
    if fault is not None and fault.code in _CREDENTIALS:
        return by_fault("credentials", fault)
    if fault is not None and fault.code in _UNREACHED:
        return not_checked("credentials", f"Google gave no usable answer: {fault.what}")
    return ok("credentials", "Google accepts them.")


def api(fault: Fault | None) -> Finding:
    """Judge whether Compute Engine can be used in this project, by the same."""
    if fault is not None and fault.code in _PROJECT | _UNREACHED:
        return by_fault("compute-engine-api", fault)
    if fault is not None and fault.code in _CREDENTIALS:
        return not_checked("compute-engine-api", "Google did not accept the credentials.")
    return ok("compute-engine-api", "It is enabled and answers.")


def permissions(
    asked: Sequence[str], missing: Sequence[str] | None, fault: Fault | None, project: str
) -> list[Finding]:
    """Judge each permission. `missing` is None when they could not be asked for, because of `fault`."""
    found: list[Finding] = []
    for name in asked:
        check = f"permission {name}"
        if missing is None:
            found.append(not_checked(check, fault.what if fault else "Google was not asked."))
        elif name in missing:
            found.append(by_fault(check, lacking(name, project)))
        else:
            found.append(ok(check, "granted"))
    return found


def act_as(seen: MachineSeen | None, *, may: bool | None, fault: Fault | None) -> Finding:
    """Judge whether we may act for the machine's service account, without which a start is refused.

    `may` is None when IAM could not be asked for it, because of `fault`.
    """
    check = f"permission {ACT_AS}"
    if seen is None:
        return not_checked(check, "The machine could not be looked at.")
    if not seen.service_account:
        return ok(check, "Not needed: the machine has no service account of its own.")
    if may:
        return ok(check, f"granted on {seen.service_account}")
    lacks = named("act-as")
    todo = lacks.todo.replace("MACHINE_ACCOUNT", seen.service_account)
    if may is None:
        why = f"IAM gave no usable answer: {fault.what}" if fault else "IAM was not asked."
        if fault is not None and fault.code == "api-disabled":
            why = "The API of IAM is not enabled in this project, so it can't be asked. A first start shows it."
            todo = f"To have it checked: gcloud services enable iam.googleapis.com. If a start is refused: {todo}"
        return not_checked(check, why, todo)
    return Finding(check=check, state=State.FAILED, words=lacks.what, todo=todo)


def machine(seen: MachineSeen | MachineMissing | None, fault: Fault | None, name: str) -> list[Finding]:
    """Judge the machine itself, its GPU and its disk for models and outputs."""
    if not isinstance(seen, MachineSeen):
        if seen is not None:
            gone = by_fault("machine", named("not-found"))
        elif fault is not None and fault.code not in _CREDENTIALS | _PROJECT | _UNREACHED:
            gone = by_fault("machine", fault)
        else:
            gone = not_checked("machine", fault.what if fault else "Google was not asked.")
        return [gone, *(not_checked(check, "The machine could not be looked at.") for check in ("gpu", "data-disk"))]
    found = [ok("machine", f"{name} in {seen.zone}, {seen.machine_type}, {seen.status}")]
    if seen.accelerators:
        found.append(ok("gpu", ", ".join(f"{count} × {kind}" for kind, count in seen.accelerators)))
    else:
        found.append(
            Finding(
                check="gpu",
                state=State.FAILED,
                words="The machine has no GPU.",
                todo="Create it with one, for example: gcloud compute instances create with "
                "--machine-type=n1-standard-4 --accelerator=type=nvidia-tesla-t4 --maintenance-policy=TERMINATE",
            )
        )
    if DATA_DISK in seen.disks:
        found.append(ok("data-disk", f"A disk with the device name {DATA_DISK} is attached."))
    else:
        found.append(
            Finding(
                check="data-disk",
                state=State.WARNING,
                words=f"No disk with the device name {DATA_DISK} is attached, so models, nodes and outputs lie on the "
                "boot disk and go with it.",
                todo=f"Attach one: gcloud compute instances attach-disk {name} --zone={seen.zone} --disk=DISK "
                f"--device-name={DATA_DISK}",
            )
        )
    return found


def gpu_quota(seen: MachineSeen, quotas: Sequence[Quota]) -> Finding:
    """Judge the region's limit for the machine's GPUs."""
    kind, count = seen.accelerators[0]
    metric = _METRICS.get(kind) or f"{kind.removeprefix('nvidia-').removeprefix('tesla-').replace('-', '_').upper()}"
    metric = metric if kind in _METRICS else f"NVIDIA_{metric}_GPUS"
    return _quota("gpu-quota", f"PREEMPTIBLE_{metric}" if seen.preemptible else metric, count, seen, quotas)


def gpu_quota_everywhere(seen: MachineSeen, quotas: Sequence[Quota]) -> Finding:
    """Judge the project's limit for GPUs of all kinds in all regions."""
    needed = sum(count for _, count in seen.accelerators)
    return _quota("gpu-quota-all-regions", GPUS_ALL_REGIONS, needed, seen, quotas)


def _quota(check: str, metric: str, needed: int, seen: MachineSeen, quotas: Sequence[Quota]) -> Finding:
    quota = next((each for each in quotas if each.metric == metric), None)
    if quota is None:
        return not_checked(check, f"Google names no limit {metric} here.")
    words = f"{metric}: {quota.usage:g} of {quota.limit:g} in use, the machine needs {needed}."
    if quota.limit < needed:
        return Finding(check=check, state=State.FAILED, words=words, todo=named("quota").todo)
    if seen.status not in UP and quota.limit - quota.usage < needed:
        return Finding(check=check, state=State.WARNING, words=words, todo=named("quota").todo)
    return ok(check, words)


def firewall(found: Firewall, ports: Sequence[int]) -> Finding:
    """Judge whether browsers get through Compute Engine's own firewall to these ports of the machine."""
    closed: list[str] = []
    some: list[str] = []
    for port in ports:
        whom, sources = opened(found.rules, port)
        if whom is Open.NOBODY:
            closed.append(str(port))
        elif whom is Open.SOME:
            some.append(f"{port} (from {', '.join(sources)})")
    if closed:
        rule = ",".join(f"tcp:{port}" for port in closed)
        return Finding(
            check="firewall",
            state=State.FAILED,
            words=f"Compute Engine's firewall lets nobody in to TCP port {' and '.join(closed)} of the machine.",
            todo=f"gcloud compute firewall-rules create comfyui-web --allow={rule} --source-ranges=0.0.0.0/0 "
            "--target-tags=comfyui, and give the machine that tag. The machine's own firewall keeps to ALLOWED_IP.",
        )
    if found.policies:
        return not_checked("firewall", "Its rules let the web in, but firewall policies apply too, not read here.")
    if some:
        return Finding(
            check="firewall",
            state=State.WARNING,
            words=f"Compute Engine's firewall lets only some in: {'; '.join(some)}.",
            todo="Let in whoever shall use ComfyUI, the app itself (APP_EGRESS_IP), and for Let's Encrypt everybody "
            "to port 80.",
        )
    return ok("firewall", f"Compute Engine's firewall lets everybody in to port {' and '.join(map(str, ports))}.")


def static_address(seen: MachineSeen, *, reserved: bool, name: str, instance: str) -> Finding:
    """Judge whether the machine keeps its external address, which a `name` needs."""
    shown = seen.external_ip or "none while it is off"
    if reserved:
        return ok("external-address", f"{shown}, reserved: it stays.")
    if not name:
        return ok("external-address", f"{shown}; another after each start, which the page follows.")
    return Finding(
        check="external-address",
        state=State.WARNING,
        words=f"The machine has another address after each start, and {name} can't follow it.",
        todo=f"Reserve one (gcloud compute addresses create {instance} --region={seen.zone.rpartition('-')[0]}) and "
        "give it to the machine as its access config; or have the name updated at each start.",
    )


def start_up_script(*, foreign: bool) -> Finding:
    """Judge whether our software gets on the machine."""
    if not foreign:
        return ok("start-up-script", "Nothing stands in the way of comfyweb's own.")
    return Finding(
        check="start-up-script",
        state=State.WARNING,
        words="The machine has a start-up script that is not comfyweb's. It is left as it is, so comfyweb's own host "
        "software is not installed.",
        todo="Look at startup-script and startup-script-url in its metadata, and remove what is not needed any more.",
    )


def clock(own: datetime, googles: datetime) -> Finding:
    """Judge this computer's clock by Google's, which tells whole seconds."""
    apart = abs(own - googles)
    words = f"This computer's clock and Google's are {apart.total_seconds():.0f} s apart."
    if apart <= CLOCKS_AGREE:
        return ok("clock", words)
    state = State.FAILED if apart > CLOCKS_DIFFER else State.WARNING
    todo = "Have it set by the network (NTP): timedatectl set-ntp true. By a wrong clock Google refuses credentials."
    return Finding(check="clock", state=state, words=words, todo=todo)
