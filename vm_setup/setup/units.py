"""systemd units: written when they differ, enabled, and loaded once. A unit of somebody else's is put aside first."""

import sys
from collections.abc import Iterable
from importlib import resources

from vm_setup.base import files
from vm_setup.base.paths import Data
from vm_setup.base.places import COMFYUI_UNIT
from vm_setup.setup.adoption import Manifest
from vm_setup.setup.system import LOG, System, Trouble

MARK = "# comfyweb"
DISK, MOUNT, BLOCK = "comfyweb-disk.service", "mnt-persist.mount", "comfyweb-metadata-block.service"
ANSWERING = "comfyweb-answering.service"
GATE = "comfyweb-gate.service"
FIREWALL = "comfyweb-firewall.service"
CERTIFICATES, CERTIFICATES_TIMER = "comfyweb-certificates.service", "comfyweb-certificates.timer"
FIRST = (DISK, MOUNT)
KEEPER, DEADMAN_TIMER = "comfyweb-keeper.service", "comfyweb-deadman.timer"
GUARD = (KEEPER, "comfyweb-poweroff.service", "comfyweb-deadman.service", DEADMAN_TIMER)
# What is added to units of others, and the bundle's file that has it.
DROP_INS = {
    r"dev-disk-by\x2did-google\x2dpersistent\x2dcomfyui.device.d/comfyweb.conf": "device-timeout.conf",
    "nftables.service.d/comfyweb.conf": "nftables.conf",
}
_PYTHON = "/usr/bin/python3"
RULES = "comfyweb/metadata-block.nft"
NEEDRESTART = "needrestart/conf.d/comfyweb.conf"


def names() -> list[str]:
    """List the units that the bundle has."""
    found = (entry.name for entry in resources.files("vm_setup").joinpath("units").iterdir())
    return sorted(name for name in found if name.endswith((".service", ".timer", ".mount", ".socket", ".path")))


def packed(name: str) -> str:
    """Return a file of the bundle's `units` folder."""
    return resources.files("vm_setup").joinpath("units", name).read_text("utf-8")


def rendered(name: str, data: Data) -> str:
    """Return a unit as it is on this machine: with the place of the data, and the Python that runs us."""
    text = packed(name).replace("@DATA@", str(data.volume)).replace(_PYTHON, sys.executable or _PYTHON)
    return text if text.startswith(MARK) else f"{MARK}\n{text}"


def apply(system: System, wanted: Iterable[str], data: Data) -> list[str]:
    """Write and enable these units; return those that changed. Raises `Trouble` when systemd refuses."""
    changed = [name for name in wanted if _write(system, name, rendered(name, data))]
    changed += [
        name for name, source in DROP_INS.items() if files.write_changed(system.paths.units / name, packed(source))
    ]
    for name in wanted:
        _enable(system, name)
    _load(system)
    return changed


def withdraw(system: System, name: str) -> None:
    """Take a unit away, so that another of its name serves. Raises `Trouble` when systemd refuses."""
    if not files.read(system.paths.units / name).startswith(MARK):
        return
    _remove(system, name)
    _load(system)


def _remove(system: System, name: str) -> None:
    for link in system.paths.units.glob(f"*.*/{name}"):
        files.remove(link)
    files.remove(system.paths.units / name)


def _load(system: System) -> None:
    """Let systemd read what was written, unless it has: a kill between the two is noticed by the note."""
    noted, now = system.paths.state / "units-loaded", _written(system, [*names(), *DROP_INS])
    if files.read(noted) == now:
        return
    done = system.run("systemctl", "daemon-reload")
    if not done.ok:
        raise Trouble(f"systemd could not read comfyweb's units: {done.words}")
    files.write(noted, now)


def _written(system: System, wanted: Iterable[str]) -> str:
    return files.digest(*(files.read(system.paths.units / name) for name in wanted))


def _write(system: System, name: str, text: str) -> bool:
    path = system.paths.units / name
    there = files.read(path)
    if there and not there.startswith(MARK):
        LOG.info("%s was somebody else's unit: it is kept in %s", name, system.paths.state)
        Manifest(system).put_aside(path)
    if path.is_symlink():  # masked, or linked from elsewhere: what we write must not land there
        Manifest(system).put_aside(path)
    return files.write_changed(path, text)


def _enable(system: System, name: str) -> None:
    """Do what `systemctl enable` does for the two lines that our units use."""
    folder = system.paths.units
    for line in files.read(folder / name).splitlines():
        key, _, targets = line.partition("=")
        suffix = {"WantedBy": "wants", "RequiredBy": "requires"}.get(key.strip())
        for target in targets.split() if suffix else ():
            files.link(folder / f"{target}.{suffix}" / name, f"../{name}")


def is_enabled(text: str) -> bool:
    """Whether a unit is one that starts by itself."""
    return any(line.startswith(("WantedBy=", "RequiredBy=")) for line in text.splitlines())


def running() -> list[str]:
    """List the units that run by themselves, but for those of the disk."""
    return [name for name in names() if name not in FIRST and is_enabled(packed(name))]


def start_services(system: System, version: str) -> str:
    """Start what should run beside ComfyUI, and start it again when it is not what runs; return what went wrong.

    At boot systemd has started all of it. The note is of the last time that this was done, so that a kill between a
    new unit and its start is made up for. A version whose services come up is from then on the good one.
    """
    enabled = [name for name in running() if name != COMFYUI_UNIT]
    rules = files.read(system.paths.etc / RULES)
    noted, now = system.paths.state / "services-started", files.digest(version, rules, _written(system, enabled))
    if files.read(noted) == now:
        return ""
    # Reloading the metadata block leaves ComfyUI alone; a restart of it would restart ComfyUI too.
    done = system.run("systemctl", "reload-or-restart", *enabled, timeout=120)
    if not done.ok:
        return f"A part of comfyweb's host software did not start: {done.words}"
    files.link(system.paths.good, version)
    files.write(noted, now)
    return ""


def guard(system: System, version: str) -> None:
    """Have the keeper and the dead-man switch there, which need nothing else. Raises `Trouble` when systemd refuses.

    And keep upgrades of the system from restarting ComfyUI: needrestart(1) restarts all that uses a replaced library.
    """
    files.write_changed(system.paths.etc / NEEDRESTART, packed("needrestart.conf"))
    ensure_good(system, version)
    apply(system, GUARD, Data(volume=system.paths.mount))
    noted, now = system.paths.state / "guarded", _written(system, GUARD)
    if files.read(noted) == now:
        return
    done = system.run("systemctl", "--no-block", "start", KEEPER, DEADMAN_TIMER)
    if not done.ok:
        raise Trouble(f"systemd does not start comfyweb's keeper: {done.words}")
    files.write(noted, now)


def ensure_good(system: System, version: str) -> None:
    """Let the dead-man switch run this version while there is no good one."""
    if not system.paths.good.exists():
        files.link(system.paths.good, version)


def tidy(system: System, version: str) -> None:
    """Remove what another version has left and this one doesn't know: its units, and its program unless it is good."""
    unknown = (path for path in system.paths.units.glob("comfyweb-*") if path.name not in names())
    if strange := sorted(path.name for path in unknown if files.read(path).startswith(MARK)):
        LOG.info("Of another version, and removed: %s.", ", ".join(strange))
        system.run("systemctl", "stop", *strange, timeout=120)
        for name in strange:
            _remove(system, name)
        system.run("systemctl", "daemon-reload")
    kept = {version, *(link.readlink().name for link in system.paths.versions.glob("*") if link.is_symlink())}
    for folder in system.paths.versions.glob("*"):
        if folder.is_dir() and not folder.is_symlink() and folder.name not in kept:
            files.remove(folder)


def comfyui_runs_otherwise(system: System) -> bool:
    """Say once whether ComfyUI's unit is another than that which it was started with, so that it must start again."""
    noted, now = system.paths.state / "comfyui-started", _written(system, [COMFYUI_UNIT])
    if files.read(noted) == now:
        return False
    files.write(noted, now)
    return True
