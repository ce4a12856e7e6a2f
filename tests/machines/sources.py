"""Where a machine gets ComfyUI and its packages from: a git server and a package index beyond its cable.

The stand-in ComfyUI is released as the real one is: by tags, a bad one among them now and then. The index holds the few
packages that a first installation of it takes, fetched once by pip.
"""

import shutil
import sys
from pathlib import Path

from tests.machines import roots
from tests.machines.commands import run
from tests.machines.machine import Machine
from tests.machines.network import GATEWAY
from vm_setup.setup.comfyui import UV

HERE = Path(__file__).parent / "standin_comfyui"
FIRST, SECOND = "v0.33.0", "v0.33.1"
OTHER_PACKAGES = "v0.33.2"  # and so another environment
# Releases that can be asked for and never work: each fails at another point of its way.
DIES, NEVER_ANSWERS, NEEDS_THE_IMPOSSIBLE = "v0.34.0", "v0.34.1", "v0.34.2"
UNKNOWN = "v9.9.9"
_NEEDED = "iniconfig==2.1.0"
_REQUIREMENTS = f"{_NEEDED}\n"
# What the host installs with, and what uv puts in an environment.
_PACKAGES = (UV, _NEEDED, "pip==25.2", "setuptools==80.9.0", "wheel==0.45.1")
GIT = f"git://{GATEWAY}/comfyui"
INDEX = f"http://{GATEWAY}/simple"
_HANG = "import time\ntime.sleep(86400)\n"
_DIE = "raise SystemExit('Torch not compiled with CUDA enabled')\n"


def serve(machine: Machine) -> None:
    """Serve both to a machine, and have its metadata say so."""
    git, index = repositories(), roots.kept("index", _PACKAGES, _fetch)
    daemon = ("git", "daemon", f"--listen={GATEWAY}", f"--base-path={git}", "--export-all", "--reuseaddr", git)
    packages = (sys.executable, "-m", "http.server", "--bind", GATEWAY, "--directory", index, "80")
    for command in (daemon, packages):
        machine.serve("ip", "netns", "exec", machine.network.outside, *map(str, command))
    machine.metadata(
        comfyweb_comfyui=FIRST,
        comfyweb_comfyui_git=GIT,
        comfyweb_comfyui_index=INDEX,
        comfyweb_comfyui_torch="torch==0.0",  # the stand-in asks for none; the release's folder is named after it
        enable_guest_attributes="TRUE",
    )


def repositories() -> Path:
    """Return the folder with the repository `comfyui`, which is made anew when the stand-in or this file changes."""
    files = sorted(path for path in HERE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    made_of = [text for path in (Path(__file__), *files) for text in (path.name, path.read_text("utf-8"))]
    return roots.kept("repositories", made_of, _make)


def _fetch(index: Path) -> None:
    """Fetch the index: pip finds a package's files wherever a page lists them, so folders will do."""
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
    for needed in _PACKAGES:
        run(*pip, "--dest", index / "simple" / needed.partition("==")[0], needed, within=300)


def _make(folder: Path) -> None:
    """Make the repository with its tags, as a bare one that git serves."""
    folder.mkdir()
    work = folder / "comfyui.work"
    run("git", "init", "--quiet", "--initial-branch=master", work)
    main = (HERE / "main.py").read_text("utf-8")
    newer = main.replace('VERSION = "0.33.0"', 'VERSION = "0.33.1"')
    _release(work, FIRST, main)
    _release(work, SECOND, newer)
    _release(work, OTHER_PACKAGES, newer, "iniconfig>=2\n")
    _release(work, DIES, _DIE)
    _release(work, NEVER_ANSWERS, _HANG)
    _release(work, NEEDS_THE_IMPOSSIBLE, newer, "iniconfig==0.0.0.1\n")
    run("git", "clone", "--quiet", "--bare", work, folder / "comfyui")
    shutil.rmtree(work)


def _release(work: Path, tag: str, main: str, requirements: str = _REQUIREMENTS) -> None:
    shutil.copytree(HERE, work, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (work / "main.py").write_text(main, "utf-8")
    (work / "requirements.txt").write_text(requirements, "utf-8")
    (work / "manager_requirements.txt").write_text("", "utf-8")
    (work / "README.md").write_text(f"A stand-in for ComfyUI {tag}.\n", "utf-8")
    run("git", "-C", work, "add", "--all")
    who = ("-c", "user.name=Stand-in", "-c", "user.email=stand-in@example.com", "-c", "commit.gpgsign=false")
    run("git", "-C", work, *who, "commit", "--quiet", "--message", tag)
    run("git", "-C", work, *who, "tag", tag)
