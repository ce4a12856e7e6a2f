"""The one file that a machine gets: small, known again, the same from the same sources, and whole on the machine."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from comfyweb.machine.preparation import SCRIPT_MARK, foreign_script
from vm_setup import bundle
from vm_setup.__main__ import COMMANDS
from vm_setup.host.bundle import MARK, version_of

LONGEST_BOOTSTRAP = 60


def test_it_fits_into_metadata_and_its_bootstrap_is_short() -> None:
    assert len(bundle.script().encode()) < 256 * 1024
    assert len((bundle.SOURCE / "startup.sh").read_text().splitlines()) <= LONGEST_BOOTSTRAP


def test_the_app_knows_it_again_and_which_version_it_is() -> None:
    script = bundle.script()
    assert SCRIPT_MARK == MARK
    assert not foreign_script({"startup-script": script}, {"startup-script": script + "older"})
    assert version_of(script).startswith(f"{bundle.RELEASE}+")
    assert version_of("#!/bin/bash\necho theirs\n") == ""
    assert version_of("\n" * 10 + script) == ""


def test_the_same_sources_make_the_same_bytes_and_others_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bundle.script()
    copy = tmp_path / "vm_setup"
    shutil.copytree(bundle.SOURCE, copy)
    monkeypatch.setattr(bundle, "SOURCE", copy)
    bundle.script.cache_clear()
    assert bundle.script() == first
    (copy / "host/idle.py").open("a").write("\n")
    bundle.script.cache_clear()
    assert version_of(bundle.script()) != version_of(first)
    bundle.script.cache_clear()


def test_one_that_is_too_long_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "LONGEST_BYTES", 1000)
    bundle.script.cache_clear()
    with pytest.raises(ValueError, match="more than the 1000"):
        bundle.script()
    bundle.script.cache_clear()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The bundle, to be run below a folder, telling its program's words instead of doing them."""
    home = tmp_path / "opt"
    text = bundle.script().replace("home=/opt/comfyweb", f"home={home}")
    text = text.replace('[ "$(id -u)" = 0 ]', "true").replace('comfyweb.pyz" reconcile', 'comfyweb.pyz" version')
    script = tmp_path / "startup.sh"
    script.write_text(text)
    return script


def start(script: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **environ}
    return subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False, env=environment)


def test_it_unpacks_itself_and_runs(script: Path) -> None:
    for _ in range(2):
        done = start(script)
        assert (done.returncode, done.stdout.strip()) == (0, version_of(script.read_text())), done.stderr
    assert (script.parent / "opt/current").is_symlink()


def test_a_second_one_waits_until_the_first_has_unpacked(script: Path) -> None:
    home = script.parent / "opt"
    home.mkdir()
    with (home / ".unpack.lock").open("w") as first:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = subprocess.Popen(["bash", str(script)], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(0.3)
        assert not list(home.rglob("*.pyz*"))
    assert second.communicate()[0].strip() == version_of(script.read_text())


def test_a_program_that_a_power_cut_has_left_in_pieces_is_unpacked_again(script: Path) -> None:
    start(script)
    program = script.parent / "opt/current/comfyweb.pyz"
    program.write_bytes(program.read_bytes()[:1000])
    assert start(script).returncode == 0


def test_a_script_that_arrived_in_part_starts_nothing_and_leaves_the_old_one_in_force(script: Path) -> None:
    start(script)
    before = (script.parent / "opt/current").readlink()
    version = version_of(script.read_text())
    text = script.read_text().replace(version, "9.9+cut")
    script.write_text(text[: len(text) - 5000])
    done = start(script)
    assert done.returncode == 1
    assert "arrived damaged" in done.stdout
    assert (script.parent / "opt/current").readlink() == before


def test_without_a_python_that_is_new_enough_it_says_so(script: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "id", "cat", "date", "curl"):
        (programs / name).symlink_to(shutil.which(name) or name)
    text = script.read_text().replace("/opt/conda/bin/python3", "/none/python3")
    script.write_text(text.replace("http://169.254.169.254", "http://127.0.0.1:9"))
    old = programs / "python3"
    old.write_text("#!/bin/bash\nexit 1\n")
    old.chmod(0o755)
    done = start(script, PATH=str(programs))
    assert done.returncode == 1
    assert "no Python 3.10 or newer" in done.stdout


def test_each_command_is_there(tmp_path: Path) -> None:
    program = tmp_path / "comfyweb.pyz"
    program.write_bytes(bundle.program())
    names = "\n".join(f"import {module.partition(':')[0]}" for module in COMMANDS.values())
    code = (
        f"import sys\nsys.path.insert(0, {str(program)!r})\n{names}\nassert 'pyz' in vm_setup.setup.reconcile.__file__"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
    done = subprocess.run([sys.executable, str(program), "no-such"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "reconcile" in done.stderr
