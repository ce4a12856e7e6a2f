"""The guest of the emulated machine: a distribution's own systemd, booted by systemd-nspawn over a golden root."""

import asyncio
import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.machines.commands import PATH, CommandFailed, in_group, run
from tests.machines.disks import Disk, cut
from tests.machines.groups import Group
from tests.machines.network import Network
from tests.machines.roots import Root

REBOOT = 133  # what systemd-nspawn answers when its guest wants to boot again, and it has no unit of its own
PATIENCE = 20.0
_NAMESPACES = ("-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w")  # all of them, and its root and working directory
DATA_DEVICE = "/dev/sdb"
# Compute Engine's guests get this link from udev, by the disk's name in the machine; no udev runs in a container.
DATA_LINK = f"L+ /dev/disk/by-id/google-persistent-comfyui - - - - ../..{DATA_DEVICE.removeprefix('/dev')}\n"
_LINK_FILE = "etc/tmpfiles.d/comfyweb-machines.conf"
# All mounts are made here, in a namespace that ends with the guest. systemd-nspawn wants a tmpfs for its own files.
# What the guest syncs is in the disk's file then, and safe from a power cut of the guest. Nobody waits until it is on
# this computer's own disk too (nobarrier), which a package installation would do thousands of times.
_BOOT = """
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
mount -o loop,noatime,nobarrier "$boot" "$folder/boot"
mkdir -p "$folder/boot/upper/etc/tmpfiles.d" "$folder/boot/work"
printf %s "$link" > "$folder/boot/upper/$link_file"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$folder/boot/upper,workdir=$folder/boot/work" "$folder/root"
exec systemd-nspawn "$@"
"""


class Nspawn:
    """Boots, and loses its electricity, as the emulator says; a `comfyweb.demo.guest.Guest`.

    A guest that wants to boot again does so, as on Compute Engine, without anybody being told.
    """

    def __init__(
        self, *, name: str, folder: Path, root: Root, network: Network, group: Group, boot: Disk, data: Disk
    ) -> None:
        self.boots = 0
        self.data_attached = True
        self._name = name
        self._folder = folder
        self._root = root
        self._network = network
        self._group = group
        self._data = data
        self._boot = boot
        self._electricity = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._on = False
        self._poweroff: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.console = folder / "console"

    def report_to(self, poweroff: Callable[[], None]) -> None:
        """Call `poweroff`, in the emulator's loop, when the machine has switched itself off."""
        self._poweroff = poweroff

    @property
    def layers(self) -> Sequence[Path]:
        """What lies below its boot disk, the uppermost first."""
        return self._root.layers

    def put(self, path: str, content: bytes) -> None:
        """Write a file on its boot disk while it is off."""
        script = 'mount -o loop "$1" "$2"; mkdir -p "$(dirname "$2/upper/$3")"; cp "$4" "$2/upper/$3"; umount "$2"'
        point, source = self._folder / "boot", self._folder / "put"
        point.mkdir(exist_ok=True)
        source.write_bytes(content)
        # Its mounts are its own and end with it.
        mounted = ("unshare", "--mount", "--propagation", "slave", "/bin/sh", "-euc", script, "sh")
        run(*mounted, self._boot.file, point, path, source)
        self._settle()

    async def power_on(self, boot_id: str) -> None:
        """Boot."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._power_on)

    async def power_off(self) -> None:
        """Lose electricity. What was not written to the disks is lost."""
        await asyncio.to_thread(self.cut)

    def idle_in(self, seconds: float) -> None:
        """Not here: a real machine's clock can't be moved, so tests give it an idle limit of seconds."""
        raise NotImplementedError

    def cut(self) -> None:
        """Take the electricity away now, from disks and processes, and return when nothing is left of the boot."""
        with self._electricity:
            self._on = False
            process = self._process
            if process is None:
                return
            if process.poll() is None:
                self._lose_writes(process.pid)
            self._process = None
            process.kill()  # it may not have entered its group yet
            self._group.kill()
            process.wait(PATIENCE)
            self._settle()

    def report(self) -> None:
        """Tell the emulator that the machine is off."""
        if self._loop is not None and self._poweroff is not None:
            with contextlib.suppress(RuntimeError):  # the emulator has ended meanwhile
                self._loop.call_soon_threadsafe(self._poweroff)

    def is_off(self) -> bool:
        """Whether nothing is left of a boot, nor on its way out."""
        with self._electricity:
            return self._process is None

    def leader(self) -> int | None:
        """Return the process that is number 1 inside; None while there is none."""
        process = self._process
        if process is None:
            return None
        for child in _children(process.pid):
            for candidate in (child, *_children(child)):
                if _number_inside(candidate) == 1:
                    return candidate
        return None

    def inside(self, *command: str) -> list[str]:
        """Return the command that runs `command` inside, as root. Raises `CommandFailed` while nobody is inside."""
        leader = self.leader()
        if leader is None:
            raise CommandFailed(f"{' '.join(command)}: the machine is off")
        environment = ["env", "-i", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb", f"PATH={PATH}"]
        return ["nsenter", "-t", str(leader), *_NAMESPACES, *environment, *command]

    def _power_on(self) -> None:
        with self._electricity:
            self._on = True
            self._spawn()

    def _spawn(self) -> None:
        for name in ("boot", "root"):
            (self._folder / name).mkdir(exist_ok=True)
        bind = [f"--bind={self._data.attach()}:{DATA_DEVICE}"] if self.data_attached else []
        environment = {
            "PATH": PATH,
            "boot": str(self._boot.file),
            "folder": str(self._folder),
            "link": DATA_LINK if self.data_attached else "",
            "link_file": _LINK_FILE,
            "lower": ":".join(map(str, self._root.layers)),
        }
        nspawn = (
            *("--quiet", "-D", self._folder / "root", "-b", f"--machine={self._name}", "--hostname=comfyui-gpu"),
            *("--register=no", "--keep-unit", f"--network-namespace-path={self._network.guest_namespace}"),
            *("--capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_SYS_ADMIN", "--resolv-conf=off", "--timezone=off"),
            *("--console=pipe", *bind),
        )
        command = in_group(self._group.join(), "unshare", "--mount", "--propagation", "slave")
        command += ["/bin/sh", "-euc", _BOOT, "sh", *map(str, nspawn)]
        with self.console.open("ab") as console:
            self._process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.boots += 1
        threading.Thread(target=self._watch, args=(self._process,), daemon=True).start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the end of a boot that nobody has cut, and let follow from it what the guest wanted."""
        code = process.wait()
        with self._electricity:
            if self._process is not process or not self._on:
                return
            self._process = None
            self._group.kill()
            self._settle()
            if code == REBOOT:
                self._spawn()
                return
        self.report()

    def _lose_writes(self, nspawn: int) -> None:
        leader = self.leader()
        for process, disk in ((leader, self._data), (nspawn, self._boot)):
            if process is not None and (device := disk.device()):
                cut(process, device)

    def _settle(self) -> None:
        """Wait until the kernel has let go of the boot disk: its loop device ends with its last mount."""
        end = time.monotonic() + PATIENCE
        while self._boot.device():
            if time.monotonic() > end:
                raise TimeoutError("the boot disk is still in use")
            time.sleep(0.01)


def _children(process: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text("utf-8").split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _number_inside(process: int) -> int:
    """Return the number that a process has in the innermost of its namespaces; 0 when it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    numbers = line.split()[1:]
    return int(numbers[-1]) if len(numbers) > 1 else 0
