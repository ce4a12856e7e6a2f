"""A machine in a folder: real files, real git and ext4 tools, and stand-ins for what only a booted system has."""

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from vm_setup.base import files
from vm_setup.base.comfyui import Look, Reached
from vm_setup.base.paths import Data, Paths
from vm_setup.setup import disk
from vm_setup.setup.metadata import Silent
from vm_setup.setup.reconcile import reconcile
from vm_setup.setup.steps import Steps
from vm_setup.setup.system import NOT_FOUND, Commands, Done, System

MIB = 1 << 20
PROGRAMS = ("git", "nft", "mkfs.ext4", "nginx", "certbot", "openssl")
# Run for real; those of the disk are outside of an ordinary user's path on Debian.
TOOLS = ("git", "mkfs.ext4", "e2fsck", "resize2fs", "blkid", "wipefs")
PLACES = f"/usr/sbin:/sbin:{os.environ.get('PATH', '')}"


class Machine:
    """Its parts as plain attributes, for tests to set and to look at."""

    def __init__(self, root: Path, *, disk_bytes: int = 64 * MIB) -> None:
        if absent := [tool for tool in TOOLS if shutil.which(tool, path=PLACES) is None]:
            pytest.skip(f"{', '.join(absent)} must be installed")
        self.paths = Paths(root=root, kernel=root)
        self.calls: list[str] = []
        self.sandboxes: dict[str, list[str]] = {}  # what systemd was told of each call; nothing of those of root
        self.time = 100.0
        self.answering: set[str] | None = None  # versions that come up; None: all
        self.queue: list[object] = []
        self.on_command: Callable[[str], Done | None] = lambda _: None
        self._commands = Commands()
        for name in PROGRAMS:
            self.put(f"usr/bin/{name}")
        self.put("usr/lib/python3/dist-packages/cryptography/__init__.py")
        self.put("usr/lib/python3.10/ensurepip/__init__.py")
        for minor in range(11, 15):
            self.put(f"usr/lib/python3.{minor}/ensurepip/__init__.py")
        self.put("etc/passwd", "root:x:0:0:root:/root:/bin/bash\n")
        self.put("proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
        self.put("sys/class/block/sdb/dev", "8:16\n")
        self.put("proc/driver/nvidia/version", "NVRM version: 580\n")
        self.put("proc/driver/nvidia/gpus/0/information", "Model: \t\t Tesla T4\n")
        if disk_bytes:
            self.attach(disk_bytes)

    @property
    def root(self) -> Path:
        return self.paths.root

    @property
    def started(self) -> str:
        """The version that runs; in a file, so that it outlives a process that dies."""
        return files.read(self.root / "run/comfyui-runs")

    @started.setter
    def started(self, version: str) -> None:
        self.put("run/comfyui-runs", version)

    @property
    def data(self) -> Data:
        return Data(volume=self.paths.mount)

    @property
    def system(self) -> System:
        return System(paths=self.paths, run=self.run, now=self.clock, sleep=self.sleep, look=self.look)

    @property
    def steps(self) -> Steps:
        return Steps(paths=self.paths, now=self.clock)

    def put(self, name: str, text: str = "") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def attach(self, size: int) -> Path:
        """Attach a blank disk, or make the one that is there as large as this."""
        device = self.root / "dev/sdb"
        device.parent.mkdir(parents=True, exist_ok=True)
        device.touch()
        os.truncate(device, size)
        self.paths.disk.parent.mkdir(parents=True, exist_ok=True)
        if not self.paths.disk.is_symlink():
            self.paths.disk.symlink_to("../../sdb")
        return device

    def reboot(self) -> None:
        """Lose what a reboot loses, and start what is enabled."""
        for path in sorted(self.paths.runtime.glob("**/*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        mountinfo = self.root / "proc/self/mountinfo"
        mountinfo.write_text(mountinfo.read_text().splitlines()[0] + "\n")
        self.calls.clear()
        self.started = ""
        if (self.paths.units / "multi-user.target.wants/mnt-persist.mount").is_symlink():
            self._mount()
        if (self.paths.units / "multi-user.target.wants/comfyui.service").is_symlink():
            self._start_comfyui()
        self.calls.clear()

    def clock(self) -> float:
        self.time += 0.001
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def look(self) -> Look:
        if not self.started:
            return Look(began=self.time, reached=Reached.REFUSED)
        if self.answering is not None and self.started not in self.answering:
            return Look(began=self.time, reached=Reached.SILENT)
        return Look(began=self.time, reached=Reached.ANSWERED, running=len(self.queue), pending=0)

    def run(
        self,
        *command: str | Path,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
    ) -> Done:
        """Do what the command would; `on_command` may answer instead."""
        words = [str(word) for word in command]
        sandbox: list[str] = []
        if "systemd-run" in words:
            end = words.index("--", words.index("systemd-run"))
            sandbox, words = words[:end], words[end + 1 :]
        line = " ".join(words)
        self.sandboxes[line] = sandbox
        self.calls.append(line)
        if (answer := self.on_command(line)) is not None:
            return answer
        match words:
            case ["blockdev", "--getsize64", device]:
                return Done(out=str(Path(device).stat().st_size))
            case ["blockdev", "--getro", _]:
                return Done(out="0\n")
            case ["systemctl", *rest]:
                return self._systemctl(rest)
            case ["useradd", *_, name]:
                with (self.root / "etc/passwd").open("a") as passwd:
                    passwd.write(f"{name}:x:{os.getuid()}:{os.getgid()}::/:/usr/sbin/nologin\n")
                return Done()
            case ["chown" | "usermod" | "sync" | "nginx" | "nft" | "supervisorctl" | "dpkg" | "apt-get", *_]:
                return Done()
            case [program, *rest] if program.endswith(("/bin/uv", "/bin/python", "python3")) or "venv" in rest:
                return self._python(Path(program), rest)
            case _:
                return self._commands(*words, timeout=timeout, env=env)

    def _systemctl(self, words: list[str]) -> Done:
        if words == ["start", "mnt-persist.mount"]:
            return self._mount()
        if "comfyui.service" in words and "show" not in words:
            if "start" not in words or not self.started:
                self.started = ""
            if "stop" not in words and not self.started:
                self._start_comfyui()
        return Done()

    def _python(self, program: Path, words: list[str]) -> Done:
        """Make environments, and let packages be installed into them."""
        if "venv" in words:
            self.put_program(Path(words[-1]) / "bin/python")
        elif "pip" in words and "tools-" in str(program) and program.name == "python":
            self.put_program(program.with_name("uv"))
        return Done(code=0 if "pip" in words or "venv" in words or program.exists() else NOT_FOUND)

    def put_program(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/true\n")

    def _mount(self) -> Done:
        if disk.mounted(self.system):
            return Done()
        if disk.prepare(self.system, self.steps) is not disk.State.USABLE:
            return Done(code=1, err="A dependency job for mnt-persist.mount failed.")
        self.paths.mount.mkdir(parents=True, exist_ok=True)
        with (self.root / "proc/self/mountinfo").open("a") as mountinfo:
            mountinfo.write(f"90 22 8:16 / {self.paths.mount} rw - ext4 /dev/sdb rw\n")
        return Done()

    def _start_comfyui(self) -> None:
        unit = files.read(self.paths.units / "comfyui.service")
        for volume in (self.paths.mount, self.paths.fallback):
            link = volume / "comfyui/current"
            if f"{volume}/comfyui" in unit and link.exists():
                self.started = link.readlink().name


class Host:
    """A machine and the metadata that it is told."""

    def __init__(self, folder: Path, machine: type[Machine] = Machine, *, git: str = "") -> None:
        self.machine = machine(folder / "root")
        self.sources = folder / "ComfyUI"
        self.attributes = {"comfyweb-comfyui": "v1"}
        self.attributes["comfyweb-comfyui-git"] = git or repository(self.sources, "v1")
        self.silent = 0

    def read(self) -> Mapping[str, str]:
        if self.silent:
            self.silent -= 1
            raise Silent("the metadata server answers 503")
        return self.attributes

    def reconcile(self, version: str = "1") -> int:
        return reconcile(self.machine.system, version=version, read=self.read)

    def upgrade(self, tag: str, **what: str) -> None:
        repository(self.sources, tag, **what)
        self.attributes["comfyweb-comfyui"] = tag

    @property
    def steps(self) -> dict[str, str]:
        found = files.read_object(self.machine.paths.runtime / "steps.json")["steps"]
        assert isinstance(found, list)
        return {row["name"]: row["state"] for row in found}

    @property
    def warnings(self) -> str:
        return str(files.read_object(self.machine.paths.runtime / "steps.json").get("warnings", ""))

    def release(self) -> str:
        return (self.machine.data.current / "main.py").read_text()


def repository(folder: Path, tag: str, *, requirements: str = "aiohttp\n", manager: str = "yes") -> str:
    """Make (or go on with) a git repository that holds a ComfyUI; return its address."""
    folder.mkdir(parents=True, exist_ok=True)

    def git(*words: str) -> None:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=master")
        subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)

    if not (folder / ".git").exists():
        git("init")
    (folder / "main.py").write_text(f"# {tag}\n")
    (folder / "requirements.txt").write_text(requirements)
    if manager:
        (folder / "manager_requirements.txt").write_text("comfyui_manager==4.2.2\n")
    git("add", ".")
    git("commit", "--allow-empty", "-m", tag)
    git("tag", "-f", tag)
    return f"file://{folder}"
