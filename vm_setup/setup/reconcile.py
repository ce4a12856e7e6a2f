"""Brings the machine to what it should be: reads what is wanted, compares, and changes only the difference.

It runs at each boot, beside the services, which don't wait for it. It may be started twice at once, and may be killed
at any line: each change is whole or not there, and a later run goes on from what it finds.
"""

import fcntl
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace

from vm_setup.base import files
from vm_setup.base.paths import Data
from vm_setup.base.places import COMFYUI_UNIT
from vm_setup.setup import (
    adoption,
    answering,
    certificates,
    comfyui,
    confined,
    disk,
    driver,
    extension,
    firewall,
    layout,
    metadata,
    packages,
    units,
    web,
)
from vm_setup.setup.holds import held
from vm_setup.setup.metadata import Attributes, Silent, Wanted
from vm_setup.setup.steps import CERTIFICATE, COMFYUI, DISK, FIREWALL, GATE, INSTALL, KEEPER, PACKAGES, Steps
from vm_setup.setup.system import LOG, Commands, System, Trouble

Read = Callable[[], Attributes]

_FIRST_PATIENCE_SECONDS = 2.0
_PATIENCE_SECONDS = 300.0
_LONGEST_CHECK_SECONDS = 24 * 3600.0
_ON_BOOT_DISK = "ComfyUI works on the boot disk for now."


@contextmanager
def alone(system: System) -> Generator[System]:
    """Wait until no other reconcile runs, nor a command that a killed one has left behind."""
    system.paths.runtime.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = os.open(system.paths.runtime / "reconcile.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            LOG.info("Another reconcile is at work; this one waits for it.")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield replace(system, run=Commands(held=(handle,))) if isinstance(system.run, Commands) else system
    finally:
        os.close(handle)


def reconcile(system: System, *, version: str, read: Read = metadata.fetch) -> int:
    """Bring the machine to what its metadata wants. Returns the exit code: 1 when something could not be done.

    While the metadata server is silent the last good answer serves, and it is asked again.
    """
    with alone(system) as held:
        return _reconcile(held, version=version, read=read)


def _reconcile(system: System, *, version: str, read: Read) -> int:
    steps = Steps(paths=system.paths, now=system.now)
    steps.start()
    if adoption.Manifest(system).undone.exists():
        steps.warn(
            "This machine was handed back to its former set-up (`adopt-undo`), so comfyweb leaves it alone. Remove "
            f"{adoption.Manifest(system).undone} to let it be adopted again."
        )
        return 0
    known = metadata.last_good(system.paths)
    patience = _FIRST_PATIENCE_SECONDS if known is not None else _PATIENCE_SECONDS
    try:
        attributes = metadata.with_patience(read, seconds=patience, now=system.now, sleep=system.sleep)
    except Silent as silent:
        words = f"What the app wants could not be read: {silent}."
        steps.warn(f"{words} The machine goes by what it was told in an earlier boot." if known else words)
        code = _bring(system, steps, Wanted.read(known or {}), version, may_install=known is not None)
        return _later(system, steps, version, read) or code
    metadata.keep(system.paths, attributes)
    return _bring(system, steps, Wanted.read(attributes), version, may_install=True)


def _later(system: System, steps: Steps, version: str, read: Read) -> int:
    """Ask again for a while; what comes then is put in force if it differs."""
    try:
        attributes = metadata.with_patience(read, seconds=_PATIENCE_SECONDS, now=system.now, sleep=system.sleep)
    except Silent as silent:
        LOG.warning("Given up until the next boot: %s.", silent)
        return 1
    metadata.keep(system.paths, attributes)
    steps.start()
    return _bring(system, steps, Wanted.read(attributes), version, may_install=True)


def _bring(system: System, steps: Steps, wanted: Wanted, version: str, *, may_install: bool) -> int:
    """Do each step. One that fails is told, and those that can do without it go on."""
    began = time.monotonic()
    for words in wanted.wrong:
        steps.warn(words)

    def install_packages() -> None:
        with held(system, "packages"):
            packages.ensure(system, steps)

    # First of all: whatever fails or takes long below, the machine is told of, and goes off when nobody uses it.
    fine = _tried(steps, KEEPER, lambda: units.guard(system, version))
    fine = _tried(steps, PACKAGES, install_packages) and fine
    fine = _tried(steps, FIREWALL, lambda: firewall.ensure(system, steps, wanted)) and fine
    fine = _tried(steps, CERTIFICATE, lambda: certificates.ensure(system, steps, wanted)) and fine
    fine = _tried(steps, GATE, lambda: web.ensure(system, steps)) and fine
    data = Data(volume=system.paths.mount)

    def find_volume() -> None:
        nonlocal data
        adoption.adopt_services(system, steps)
        if adoption.users_mount(system):
            units.withdraw(system, units.MOUNT)
        else:
            units.apply(system, units.FIRST, data)
        data = _volume(system, steps)

    def install() -> None:
        uid, gid = layout.ensure_user(system, data)
        layout.ensure_folders(system, data, uid, gid)
        adoption.adopt_files(system, data, uid, gid)
        extension.ensure(system.paths)
        _start_services(system, steps, data, version)
        if not may_install:
            raise Trouble("Which ComfyUI is wanted is not known yet, so none was installed.")
        place = comfyui.Place(
            system=system,
            steps=steps,
            data=data,
            has_card=driver.has_card(system),
            host_version=version,
        )
        _restart_with_new_unit(system, place)
        with held(system, "installing"):
            place.ensure(wanted)

    fine = _tried(steps, DISK, find_volume) and fine
    driver.check(system, steps)
    fine = _tried(steps, INSTALL, install) and fine
    if steps.row(COMFYUI).get("state") == "waiting" and data.current.exists():
        steps.begin(COMFYUI, "ComfyUI starts")
        system.run("systemctl", "--no-block", "start", COMFYUI_UNIT, units.ANSWERING)
    LOG.info("Reconciled in %.2f s.", time.monotonic() - began)
    return 0 if fine else 1


def _start_services(system: System, steps: Steps, data: Data, version: str) -> None:
    """Install all units and what goes with them, and start those that run beside ComfyUI."""
    confined.write(system)
    units.apply(system, [name for name in units.names() if name not in units.FIRST], data)
    if words := units.start_services(system, version):
        steps.warn(words)
        return
    with files.locked(system.paths.versions / ".unpack.lock"):  # startup.sh puts another version there under it
        units.tidy(system, version)


def _restart_with_new_unit(system: System, place: comfyui.Place) -> None:
    """Start ComfyUI again when its unit has changed, as it does with the data volume; but never under a prompt."""
    if not answering.busy(system) and units.comfyui_runs_otherwise(system) and place.current:
        system.run("systemctl", "--no-block", "restart", COMFYUI_UNIT)


def _tried(steps: Steps, name: str, action: Callable[[], None]) -> bool:
    """Do it; what goes wrong is told at that step, whatever it is: the other steps may still be possible."""
    try:
        action()
    except Trouble as trouble:
        steps.failed(name, str(trouble))
        return False
    except Exception as error:  # noqa: BLE001 - a fault of ours must not keep the other steps from being done
        LOG.exception("%s failed", name)
        steps.failed(name, f"comfyweb's host software failed ({type(error).__name__}: {error}). Its log has more.")
        return False
    return True


def _volume(system: System, steps: Steps) -> Data:
    """Mount the data disk if it can be, and return where ComfyUI's data are in this boot."""
    trouble = "" if disk.mounted(system) else _mount(system, steps)
    words = "" if adoption.users_mount(system) else disk.verdict(system)
    if not disk.mounted(system):
        steps.failed(DISK, words or f"The data disk could not be mounted ({trouble}). {_ON_BOOT_DISK}")
        system.paths.fallback.mkdir(parents=True, exist_ok=True)
        return Data(volume=system.paths.fallback)
    steps.done(DISK)
    if words:
        steps.warn(words)
    return Data(volume=system.paths.mount)


def _mount(system: System, steps: Steps) -> str:
    """Have the disk prepared and mounted by its units; return what went wrong."""
    if not system.paths.disk.exists() and not adoption.users_mount(system):
        disk.prepare(system, steps)  # says so; systemd would wait for it
        return "it is not attached"
    steps.begin(DISK, "The data disk is mounted")
    done = system.run("systemctl", "start", units.MOUNT, timeout=_LONGEST_CHECK_SECONDS)
    return "" if done.ok else done.words


def main(version: str) -> int:
    """`comfyweb.pyz reconcile`."""
    return reconcile(System(), version=version)


def hand_back(_version: str) -> int:
    """`comfyweb.pyz adopt-undo`: undo the adoption of an old host."""
    with alone(System()) as system:
        volume = system.paths.mount if disk.mounted(system) else system.paths.fallback
        stop = [*units.running(), units.CERTIFICATES]
        adoption.undo(system, Data(volume=volume), stop=stop, remove=[*units.names(), *units.DROP_INS])
    return 0
