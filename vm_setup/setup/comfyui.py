"""ComfyUI: its source in a folder for each version, its packages in an environment beside it, and which one runs.

A version is installed beside the one that runs, then becomes `current` in one step, and counts as good when it has
answered. One that does not answer is left again for the last good one, and is not tried again until somebody asks for
another. So the metadata keys upgrade, and roll back.
"""

import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vm_setup.base import files
from vm_setup.base.paths import Data
from vm_setup.base.places import COMFYUI_UNIT
from vm_setup.setup import answering, confined
from vm_setup.setup.metadata import Wanted
from vm_setup.setup.steps import COMFYUI, INSTALL, Steps
from vm_setup.setup.system import LOG, USER, Done, System, Trouble

FLAGS = "comfyweb/comfyui.env"
UV = "uv==0.13.9"
MANAGER = "comfyui-manager>=3.38"  # older ones have known ways in for strangers
_TORCH_BYTES = 12 << 30
_PLAIN_BYTES = 300 << 20
_FETCH_SECONDS = 900.0
_PACKAGES_SECONDS = 3 * 3600.0
# From the start to the first answer; custom nodes may fetch much when they are first imported.
HEALTHY_SECONDS = 300.0
# One that ends this often without ever having answered needs no more time.
_ENDED_TOO_OFTEN = 3
_LOOK_SECONDS = 5.0
_STOP_SECONDS = 60.0

# A security update of Python keeps its environments.
_PYTHON = f"{sys.executable} {sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """ComfyUI on this machine. `host_version` is ours: a new one may be able to start what an old one could not."""

    system: System
    steps: Steps
    data: Data
    has_card: bool
    host_version: str

    # What is there

    @property
    def current(self) -> str:
        """The version that runs, or nothing."""
        link = self.data.current
        return link.readlink().name if link.is_symlink() and (link / "main.py").exists() else ""

    @property
    def good(self) -> str:
        """The version that answered last; it is what a failed upgrade returns to."""
        return self._noted("good.json", "version")

    @property
    def _previous(self) -> str:
        return self._noted("good.json", "previous")

    def _noted(self, name: str, field: str) -> str:
        version = str(files.read_object(self.data.state / name).get(field, ""))
        return version if version and (self.data.releases / version / "main.py").exists() else ""

    def _is_whole(self, version: str, wanted: Wanted) -> bool:
        """Whether a version and its environment are all there, and made by this Python."""
        folder = self.data.releases / version
        stamp = _stamp(folder, wanted)
        return (
            bool(version)
            and (folder / "main.py").exists()
            and (folder / ".venv/bin/python").exists()
            and (folder / ".venv").is_symlink()
            and str((folder / ".venv").readlink()) == f"../../venv-{stamp}"
            and files.read(self.data.state / f"venv-{stamp}") == stamp
        )

    # What is done

    def ensure(self, wanted: Wanted) -> None:
        """Bring the wanted version to run, or keep the last good one and say why.

        Raises `Trouble` when there is none.
        """
        version = version_of(wanted)
        good, failed = self.good, files.read_object(self._failed)
        if good == version and self.current == version and self._is_whole(version, wanted):
            files.remove(self._failed)
            self.steps.done(INSTALL)
            if (self._set_flags() or self._runs_another(version)) and not answering.busy(self.system):
                self._comes_up(again=True)
            return
        if good and good != version and failed.get("version") == version and failed.get("host") == self.host_version:
            words = str(failed.get("words", ""))
            self.steps.done(INSTALL, words)
            self.steps.warn(words)
            self._go_on_with(good)
            return
        try:
            installed = self._install(version, wanted)
        except Trouble as trouble:
            if not good:
                raise
            self.steps.failed(
                INSTALL, f"ComfyUI {wanted.release} could not be installed, so {_spoken(good)} goes on. {trouble}"
            )
            self._go_on_with(good)
            return
        self.steps.done(INSTALL)
        if self.current and answering.busy(self.system):
            self.steps.warn(
                f"ComfyUI {wanted.release} is installed. Prompts run or wait, so it comes with the next boot."
            )
            return
        self._try(version, wanted, good, again=installed)

    def _go_on_with(self, good: str) -> None:
        """Have the good version run if another does, or with other flags; but never under a prompt."""
        if (self._switch(good) or self._runs_another(good)) and not answering.busy(self.system):
            self._comes_up(again=True)

    def _try(self, version: str, wanted: Wanted, good: str, *, again: bool) -> None:
        """Let a version run, and keep it when it answers."""
        switched = self._switch(version)
        if self._comes_up(again=again or switched or files.read(self._started) != version):
            previous = good if good != version else self._previous
            files.write_object(self.data.state / "good.json", {"version": version, "previous": previous})
            files.remove(self._failed)
            self._tidy()
            return
        log = "Its log is in `journalctl -u comfyui` on the machine."
        if not good or good == version:
            words = f"ComfyUI {wanted.release} does not answer. {log}"
            self.steps.failed(COMFYUI, words)
            return
        words = (
            f"ComfyUI {wanted.release} did not come up, so the machine went "
            f"back to {_spoken(good)}. {log} It is tried again after another release was asked for in between."
        )
        files.write_object(self._failed, {"version": version, "host": self.host_version, "words": words})
        self.steps.warn(words)
        self._switch(good)
        self._comes_up(again=True)

    @property
    def _started(self) -> Path:
        """The note of the version that was started last in this boot, if reconcile started it."""
        return self.system.paths.runtime / "comfyui-version"

    def _runs_another(self, version: str) -> bool:
        """Whether another version runs, because we were killed after a switch and before the start that follows."""
        return files.read(self._started) not in {"", version}

    @property
    def _failed(self) -> Path:
        return self.data.state / "failed.json"

    def _set_flags(self) -> bool:
        """Write what the running release needs on its command line; say whether that was another before."""
        manager = (self.data.current / "manager_requirements.txt").exists()
        words = ["--enable-manager"] * manager + ["--cpu"] * (not self.has_card)
        return files.write_changed(self.system.paths.etc / FLAGS, f"COMFYUI_FLAGS={' '.join(words)}\n")

    def _switch(self, version: str) -> bool:
        """Make a version the one that runs, in one step; say whether another was."""
        switched = files.link(self.data.current, f"releases/{version}")
        if switched:
            LOG.info("ComfyUI is %s from its next start.", _spoken(version))
        return self._set_flags() or switched

    def _comes_up(self, *, again: bool) -> bool:
        """Start ComfyUI, afresh with `again`, and wait until it answers. Raises `Trouble` when systemd refuses."""
        self.steps.begin(COMFYUI, "ComfyUI starts")
        if again:  # to its end: what answers from here on must not be the one before
            self.system.run("systemctl", "stop", COMFYUI_UNIT, timeout=_STOP_SECONDS)
        done = self.system.run("systemctl", "--no-block", "start", COMFYUI_UNIT)
        if not done.ok:
            raise Trouble(f"systemd does not start ComfyUI: {done.words}")
        if again:
            files.write(self._started, self.current, durable=False)
        until = self.system.now() + HEALTHY_SECONDS
        look = self.system.now() + _LOOK_SECONDS
        while self.system.now() < until:
            if answering.answers(self.system):
                self.steps.done(COMFYUI)
                return True
            if self.system.now() >= look:
                look = self.system.now() + _LOOK_SECONDS
                ended = self.system.run("systemctl", "show", "-P", "NRestarts", COMFYUI_UNIT).out.strip()
                if ended.isdigit() and int(ended) >= _ENDED_TOO_OFTEN:
                    return False
            self.system.sleep(0.5)
        return False

    def _install(self, version: str, wanted: Wanted) -> bool:
        """Have a version whole beside the one that runs; say whether anything had to be done. Raises `Trouble`."""
        if self._is_whole(version, wanted):
            return False
        confined.end(self.system)
        self.steps.begin(INSTALL, f"ComfyUI {wanted.release} is fetched")
        folder = self.data.releases / version
        if not (folder / "main.py").exists():
            self._fetch(folder, wanted)
        stamp = _stamp(folder, wanted)
        if files.read(self.data.state / f"venv-{stamp}") != stamp or not (self._venv(stamp) / "bin/python").exists():
            self._make_environment(folder, stamp, wanted)
        files.link(folder / ".venv", f"../../venv-{stamp}")
        return True

    def _venv(self, stamp: str) -> Path:
        return self.data.tree / f"venv-{stamp}"

    def _fetch(self, folder: Path, wanted: Wanted) -> None:
        """Fetch the source, one commit deep. A folder under its own name is always whole."""
        beside = folder.with_name(f".{folder.name}.new")
        files.remove(beside)
        self._room(_PLAIN_BYTES)
        env = {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "http:https:git:ssh:file", "HOME": "/root"}
        for words in (
            ("git", "init", "--quiet", beside),
            ("git", "-C", beside, "fetch", "--quiet", "--depth", "1", wanted.git, wanted.release),
            ("git", "-C", beside, "-c", "advice.detachedHead=false", "checkout", "--quiet", "FETCH_HEAD"),
        ):
            done = self.system.run(*words, timeout=_FETCH_SECONDS, env=env)
            if not done.ok:
                files.remove(beside)
                why = f"{wanted.git} has no {wanted.release}, or can't be reached: {done.words}"
                raise Trouble(re.sub(r"//[^/@\s]*@", "//", why))  # no password in a log
        if not (beside / "main.py").exists():
            files.remove(beside)
            raise Trouble(f"{wanted.git} at {wanted.release} is no ComfyUI: it has no main.py.")
        self.system.run("sync", "-f", beside, timeout=_FETCH_SECONDS)
        beside.rename(folder)
        files.flush_folder(folder.parent)

    def _make_environment(self, folder: Path, stamp: str, wanted: Wanted) -> None:
        """Make the environment under its final name, as ComfyUI's user; the note that it is whole comes last."""
        lists = _requirements(folder)
        text = "\n".join(files.read(path) for path in lists)
        heavy = bool(_pins(text, wanted.torch))
        self._room(_TORCH_BYTES if heavy else _PLAIN_BYTES)
        venv = self._venv(stamp)
        note = self.data.state / f"venv-{stamp}"
        files.remove(note)
        files.remove(venv)
        self._own(venv)
        constraints = self.data.state / f"constraints-{stamp}.txt"
        files.write(constraints, "\n".join([*_pins(text, wanted.torch), MANAGER]) + "\n")
        size = ", several gigabytes the first time" if heavy else ""
        self.steps.detail(INSTALL, f"The packages of ComfyUI {wanted.release} are installed{size}")
        install = self._installer(venv, wanted)
        asked = [word for path in lists for word in ("-r", str(path))]
        done = self._as_user(*install, *asked, "-c", constraints, timeout=_PACKAGES_SECONDS)
        if not done.ok:
            raise Trouble(f"The packages of ComfyUI {wanted.release} could not be installed: {done.words}")
        self._packages_of_nodes(install, constraints)
        self.system.run("sync", "-f", venv, timeout=_FETCH_SECONDS)
        files.write(note, stamp)

    def _packages_of_nodes(self, install: tuple[str, ...], constraints: Path) -> None:
        """Give a new environment what the custom nodes had in the old one, each by itself: one may be broken."""
        for path in sorted(self.data.base.glob("custom_nodes/*/requirements.txt")):
            self.steps.detail(INSTALL, f"The packages of the custom node {path.parent.name} are installed")
            done = self._as_user(*install, "-r", path, "-c", constraints, timeout=_PACKAGES_SECONDS)
            if not done.ok:
                self.steps.warn(f"The packages of the custom node {path.parent.name} were not installed: {done.words}")

    def _installer(self, venv: Path, wanted: Wanted) -> tuple[str, ...]:
        """Make an empty environment, and return the command that installs into it: uv's, else pip's."""
        first, *others = wanted.indexes or ("",)
        indexes = ("--index-url", first, *(w for i in others for w in ("--extra-index-url", i))) if first else ()
        # uv takes an index on plain http as it is; pip wants to hear that this is meant.
        plain = [part.hostname or "" for part in map(urlsplit, wanted.indexes) if part.scheme == "http"]
        for_pip = (*indexes, *(word for host in plain for word in ("--trusted-host", host)))
        if uv := self._uv(for_pip):
            made = self._as_user(uv, "venv", "--seed", "--python", sys.executable, *indexes, venv, timeout=300)
            if made.ok:
                # As pip does: the best version of all indexes, not of the first that knows the package at all.
                best = ("--index-strategy", "unsafe-best-match") if others else ()
                return (str(uv), "pip", "install", "--python", str(venv / "bin/python"), *best, *indexes)
            LOG.warning("uv made no environment, pip does: %s", made.words)
        files.remove(venv)
        self._own(venv)
        made = self._as_user(sys.executable, "-m", "venv", venv, timeout=300)
        if not made.ok:
            raise Trouble(f"Python can't make an environment: {made.words}")
        return (str(venv / "bin/python"), "-m", "pip", "install", "--no-input", *for_pip)

    def _uv(self, indexes: tuple[str, ...]) -> Path | None:
        """Return uv, which installs several times as fast as pip; None where it can't be had."""
        tools = self.data.tree / f"tools-{files.digest(UV, _PYTHON)}"
        uv = tools / "bin/uv"
        if self._as_user(uv, "--version", timeout=30).ok:
            return uv
        files.remove(tools)
        self._own(tools)
        made = self._as_user(sys.executable, "-m", "venv", tools, timeout=300)
        pip = (tools / "bin/python", "-m", "pip", "install", "--quiet", "--no-input", *indexes, UV)
        done = self._as_user(*pip, timeout=600) if made.ok else made
        if not done.ok:
            LOG.warning("uv can't be had, pip does its work: %s", done.words)
        return uv if done.ok else None

    def _as_user(self, *command: str | Path, timeout: float) -> Done:
        """Run a command as ComfyUI's user, in ComfyUI's sandbox. Raises `Trouble` when that can't be."""
        env = {
            "HOME": str(self.data.home),
            "UV_CACHE_DIR": str(self.data.cache),
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NATIVE_TLS": "1",  # trust what the system trusts: a proxy's certificate too
            "UV_SYSTEM_CERTS": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
        bundle = Path("/etc/ssl/certs/ca-certificates.crt")
        more = {"PIP_CERT": str(bundle)} if bundle.exists() else {}
        return confined.run(self.system, self.data, *command, timeout=timeout, env=env | more)

    def _own(self, folder: Path) -> None:
        """Make an empty folder of ComfyUI's user in a folder of root's."""
        folder.mkdir()
        self.system.run("chown", f"{USER}:{USER}", folder)

    def _room(self, needed: int) -> None:
        free = shutil.disk_usage(self.data.tree).free
        if free < needed:
            raise Trouble(
                f"There is too little room for it: {free / 1e9:.1f} GB are free below {self.data.tree}, "
                f"{needed / 1e9:.1f} GB are needed. Nothing was removed."
            )

    def _tidy(self) -> None:
        """Remove versions and environments but for the good one and the one before it."""
        kept = {self.good, self._previous} - {""}
        links = [self.data.releases / version / ".venv" for version in kept]
        venvs = {link.readlink().name for link in links if link.is_symlink()}
        for path in [*self.data.releases.iterdir(), *self.data.tree.glob("venv-*")]:
            if path.name not in kept | venvs:
                LOG.info("%s is not needed any more and is removed.", path)
                files.remove(path)
        for note in self.data.state.glob("venv-*"):
            if note.name not in venvs:
                files.remove(note)


def version_of(wanted: Wanted) -> str:
    """Name the folder of what is wanted: its release, and a digest of where it comes from and its pins."""
    return f"{wanted.release.replace('/', '%2F')}-{files.digest(wanted.git, *wanted.torch)[:8]}"


def _spoken(version: str) -> str:
    return version.rpartition("-")[0].replace("%2F", "/")


def _requirements(folder: Path) -> list[Path]:
    """List a release's files of packages; ComfyUI-Manager's is there where ComfyUI can take it as a package."""
    return [path for path in (folder / "requirements.txt", folder / "manager_requirements.txt") if path.exists()]


def _stamp(folder: Path, wanted: Wanted) -> str:
    """Name an environment by all that went into it."""
    texts = [files.read(path) for path in _requirements(folder)]
    return files.digest(*texts, *_pins("\n".join(texts), wanted.torch), _PYTHON, str(folder.parent))


def _pins(requirements: str, torch: tuple[str, ...]) -> list[str]:
    """Return the pins of those packages that the requirements ask for."""
    asked = {re.split(r"[^A-Za-z0-9._-]", line.strip(), maxsplit=1)[0].lower() for line in requirements.splitlines()}
    return [pin for pin in torch if re.split(r"[=<>~]", pin, maxsplit=1)[0].lower() in asked]
