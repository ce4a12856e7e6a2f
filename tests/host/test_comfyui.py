"""Upgrading ComfyUI and going back, by one metadata key, and always to something that works."""

from pathlib import Path

import pytest

from tests.host.machine import Host
from vm_setup.base import files
from vm_setup.base.places import COMFYUI_UNIT
from vm_setup.setup import comfyui, confined, units
from vm_setup.setup.metadata import DEFAULT_TORCH, Wanted
from vm_setup.setup.system import TIMED_OUT, Done


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A machine that runs v1."""
    host = Host(tmp_path)
    assert host.reconcile() == 0
    host.machine.calls.clear()
    return host


def version(host: Host, release: str) -> str:
    return comfyui.version_of(Wanted.read(host.attributes | {"comfyweb-comfyui": release}))


def test_another_release_is_installed_beside_the_one_that_runs_and_takes_over(host: Host) -> None:
    host.upgrade("v2")
    assert host.reconcile() == 0
    assert host.release() == "# v2\n"
    assert host.machine.started == version(host, "v2")
    assert (host.machine.data.releases / version(host, "v1")).is_dir()


def test_the_release_before_comes_back_without_fetching_anything(host: Host) -> None:
    host.upgrade("v2", requirements="aiohttp>=3\n")
    host.reconcile()
    host.machine.calls.clear()
    host.attributes["comfyweb-comfyui"] = "v1"
    assert host.reconcile() == 0
    assert host.machine.started == version(host, "v1")
    assert not any("git" in call or "pip" in call or "venv" in call for call in host.machine.calls)


def test_only_the_good_version_and_the_one_before_it_are_kept(host: Host) -> None:
    for tag in ("v2", "v3"):
        host.upgrade(tag, requirements=f"aiohttp>={tag[1:]}\n")
        host.reconcile()
    kept = {path.name for path in host.machine.data.releases.iterdir()}
    assert kept == {version(host, "v2"), version(host, "v3")}
    assert len(list(host.machine.data.tree.glob("venv-*"))) == 2


def test_a_release_that_does_not_come_up_is_left_for_the_last_good_one(host: Host) -> None:
    host.upgrade("v2")
    host.machine.answering = {version(host, "v1")}
    assert host.reconcile() == 0
    assert host.machine.started == version(host, "v1")
    assert host.release() == "# v1\n"
    assert "v2 did not come up" in host.warnings
    assert "back to v1" in host.warnings


def test_one_that_keeps_ending_is_given_up_without_waiting_for_the_rest_of_its_time(host: Host) -> None:
    host.upgrade("v2")
    host.machine.answering = {version(host, "v1")}
    host.machine.on_command = lambda line: Done(out="3\n") if "NRestarts" in line else None
    before = host.machine.time
    host.reconcile()
    assert host.machine.started == version(host, "v1")
    assert host.machine.time - before < comfyui.HEALTHY_SECONDS / 2


def test_the_one_before_is_ended_before_the_new_one_is_judged(host: Host) -> None:
    """Else it would answer for one that never does."""
    host.upgrade("v2")
    host.machine.answering = {version(host, "v1")}
    host.reconcile()
    assert "v2 did not come up" in host.warnings


def test_a_failed_release_is_not_tried_again_at_each_boot_but_stays_told(host: Host) -> None:
    host.upgrade("v2")
    host.machine.answering = {version(host, "v1")}
    host.reconcile()
    host.machine.reboot()
    host.reconcile()
    assert "v2 did not come up" in host.warnings
    assert not any("stop comfyui" in call for call in host.machine.calls)


def test_a_failed_release_is_tried_again_after_another_or_by_a_new_host(host: Host) -> None:
    host.upgrade("v2")
    host.machine.answering = {version(host, "v1")}
    host.reconcile()
    host.machine.answering = None
    host.reconcile(version="2")
    assert host.release() == "# v2\n"
    host.upgrade("v3")
    host.machine.answering = {version(host, "v2")}
    host.reconcile(version="2")
    assert host.release() == "# v2\n"
    host.attributes["comfyweb-comfyui"] = "v2"
    host.reconcile(version="2")
    host.machine.answering = None
    host.attributes["comfyweb-comfyui"] = "v3"
    host.reconcile(version="2")
    assert host.release() == "# v3\n"


@pytest.mark.parametrize("broken", ["git -C", "/bin/uv pip install"])
def test_what_can_not_be_installed_leaves_what_runs_alone_and_is_tried_at_the_next_boot(
    host: Host, broken: str
) -> None:
    host.upgrade("v2", requirements="aiohttp>=3\n")
    host.machine.on_command = lambda line: Done(code=1, err="no route to host") if broken in line else None
    assert host.reconcile() == 0
    assert host.machine.started == version(host, "v1")
    assert host.steps["comfyui-install"] == "failed"
    assert "v1 goes on" in host.warnings
    assert "no route to host" in host.warnings
    assert not any("stop comfyui" in call for call in host.machine.calls)
    host.machine.on_command = lambda _: None
    host.machine.reboot()
    host.reconcile()
    assert host.release() == "# v2\n"


def test_a_prompt_is_never_cut_by_an_upgrade(host: Host) -> None:
    host.upgrade("v2")
    host.machine.queue = [["a prompt"]]
    assert host.reconcile() == 0
    assert host.machine.started == version(host, "v1")
    assert "comes with the next boot" in host.warnings
    host.machine.queue = []
    host.reconcile()
    assert host.machine.started == version(host, "v2")


@pytest.mark.parametrize(("ready_at", "runs"), [(200.0, "v1"), (None, "v2")])
def test_a_silent_comfyui_counts_as_busy_if_it_has_answered_in_this_boot(
    host: Host, ready_at: float | None, runs: str
) -> None:
    host.upgrade("v2")
    host.machine.answering = {version(host, "v2")}
    files.write_object(host.machine.paths.runtime / "keeper.json", {"ready_at": ready_at})
    host.reconcile()
    assert host.machine.started == version(host, runs)
    assert ("comes with the next boot" in host.warnings) is (runs == "v1")


@pytest.mark.parametrize("queue", [[], [["a prompt"]]])
def test_other_flags_cut_no_prompt_where_the_wanted_release_can_not_be_had(host: Host, queue: list[object]) -> None:
    (host.machine.paths.etc / comfyui.FLAGS).write_text("COMFYUI_FLAGS=--of-another-card\n")
    host.attributes["comfyweb-comfyui"] = "v99"
    host.machine.queue = queue
    host.reconcile()
    assert ("systemctl stop comfyui.service" in host.machine.calls) is not bool(queue)
    assert host.machine.started == version(host, "v1")


def test_a_first_comfyui_that_does_not_answer_is_told_and_tried_again(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.machine.answering = set()
    host.reconcile()
    assert host.steps["comfyui"] == "failed"
    assert "does not answer" in host.warnings
    host.machine.answering = None
    host.machine.reboot()
    host.machine.steps.start()
    assert host.reconcile() == 0
    assert host.steps["comfyui"] == "done"


def test_an_unknown_release_is_named_without_a_password(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.attributes["comfyweb-comfyui-git"] = "http://me:secret@127.0.0.1:9/none.git"
    assert host.reconcile() == 1
    assert "http://127.0.0.1:9/none.git has no v1" in host.warnings
    assert "secret" not in host.warnings


def test_a_repository_that_is_no_comfyui_is_refused(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (host.sources / "main.py").unlink()
    host.machine.on_command = lambda line: Done() if "checkout" in line else None
    assert host.reconcile() == 1
    assert "has no main.py" in host.warnings


def installs(host: Host) -> list[str]:
    return [call for call in host.machine.calls if " pip install " in call and "tools-" in call.split()[0]]


def test_torch_is_pinned_where_the_requirements_ask_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comfyui, "_TORCH_BYTES", 0)
    host = Host(tmp_path)
    host.upgrade("v2", requirements="torch\ntorchvision>=0.1\ntorchsde\naiohttp\n")
    assert host.reconcile() == 0
    [constraints] = host.machine.data.state.glob("constraints-*.txt")
    assert constraints.read_text().splitlines() == [*DEFAULT_TORCH[:2], comfyui.MANAGER]
    host.attributes["comfyweb-comfyui-torch"] = "torch==2.9.1+cu126 torchvision==0.24.1+cu126"
    host.attributes["comfyweb-comfyui-index"] = "https://download.example.com/cu126 https://pypi.example.com/simple"
    host.machine.calls.clear()
    assert host.reconcile() == 0
    indexes = "--index-url https://download.example.com/cu126 --extra-index-url https://pypi.example.com/simple"
    assert indexes in installs(host)[-1]
    [made] = [call for call in host.machine.calls if "venv --seed" in call]
    assert indexes in made


def test_without_room_nothing_is_fetched_and_nothing_removed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.upgrade("v2")
    monkeypatch.setattr(comfyui, "_PLAIN_BYTES", 1 << 60)
    host.reconcile()
    assert "too little room" in host.warnings
    assert host.machine.started == version(host, "v1")


def test_pip_does_it_where_uv_can_not_be_had(tmp_path: Path) -> None:
    host = Host(tmp_path)

    def no_uv(line: str) -> Done | None:
        if line.endswith(comfyui.UV):
            return Done(code=1, err="no such package")
        return Done() if "/venv-" in line.split(maxsplit=1)[0] else None

    host.machine.on_command = no_uv
    assert host.reconcile() == 0
    assert any("/venv-" in call and "-m pip install" in call for call in host.machine.calls)


def test_a_new_environment_gets_what_the_custom_nodes_need_each_by_itself(host: Host) -> None:
    for name in ("broken", "fine"):
        host.machine.put(f"mnt/persist/comfyui/base/custom_nodes/{name}/requirements.txt", f"{name}-package\n")
    host.upgrade("v2", requirements="aiohttp>=3\n")
    host.machine.on_command = lambda line: Done(code=1, err="no wheel") if "custom_nodes/broken" in line else None
    assert host.reconcile() == 0
    assert host.release() == "# v2\n"
    assert "custom node broken were not installed: no wheel" in host.warnings
    assert any("custom_nodes/fine/requirements.txt" in call for call in installs(host))


def test_an_environment_that_was_lost_is_made_again(host: Host) -> None:
    [venv] = host.machine.data.tree.glob("venv-*")
    files.remove(venv)
    assert host.reconcile() == 0
    assert (venv / "bin/python").exists()
    assert any("stop comfyui.service" in call for call in host.machine.calls)


def flags(host: Host) -> str:
    return (host.machine.paths.etc / comfyui.FLAGS).read_text().strip()


def test_the_manager_is_switched_on_where_the_release_has_it(host: Host) -> None:
    assert flags(host) == "COMFYUI_FLAGS=--enable-manager --cpu"
    (host.sources / "manager_requirements.txt").unlink()
    host.upgrade("v2", manager="")
    host.reconcile()
    assert flags(host) == "COMFYUI_FLAGS=--cpu"


def test_a_card_that_was_added_is_used_from_this_boot_on(host: Host) -> None:
    host.machine.put("sys/bus/pci/devices/0000:00:04.0/vendor", "0x10de\n")
    host.machine.put("sys/bus/pci/devices/0000:00:04.0/class", "0x030200\n")
    host.reconcile()
    assert flags(host) == "COMFYUI_FLAGS=--enable-manager"
    assert any("stop comfyui.service" in call for call in host.machine.calls)


def runs_as_comfyui_s_user(line: str) -> bool:
    return any(word in line for word in ("pip install", "-m venv", "uv venv", "bin/uv"))


def test_what_is_installed_for_it_may_do_no_more_than_it_may_itself(host: Host) -> None:
    host.machine.put("mnt/persist/comfyui/base/custom_nodes/theirs/requirements.txt", "theirs\n")
    host.upgrade("v2", requirements="aiohttp>=3\n")
    assert host.reconcile() == 0
    unit = files.read(host.machine.paths.units / COMFYUI_UNIT)
    sandboxes = [host.machine.sandboxes[line] for line in host.machine.calls if runs_as_comfyui_s_user(line)]
    assert len(sandboxes) >= 4
    for words in sandboxes:
        properties = [word.removeprefix("--property=") for word in words if word.startswith("--property=")]
        assert {"User=comfyui", "NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes"} <= set(properties)
        assert [line for line in properties if f"\n{line}\n" not in unit] == ["KillSignal=SIGKILL", properties[-1]]


def test_an_installation_that_a_killed_run_has_left_is_ended_before_the_next(host: Host) -> None:
    host.upgrade("v2")
    host.reconcile()
    [ended] = [place for place, line in enumerate(host.machine.calls) if line == f"systemctl stop {confined.UNIT}"]
    assert not any("git" in line or runs_as_comfyui_s_user(line) for line in host.machine.calls[:ended])


def test_an_installation_that_takes_too_long_is_ended(host: Host) -> None:
    host.upgrade("v2", requirements="aiohttp>=3\n")
    host.machine.on_command = lambda line: Done(code=TIMED_OUT) if "uv pip install" in line else None
    host.reconcile()
    at = next(place for place, line in enumerate(host.machine.calls) if "uv pip install" in line)
    assert host.machine.calls[at + 1] == f"systemctl stop {confined.UNIT}"
    assert host.release() == "# v1\n"


def test_nothing_runs_as_comfyui_s_user_while_the_metadata_server_is_in_its_reach(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.machine.on_command = lambda line: Done(code=1, err="no such table") if "metadata-block.nft" in line else None
    assert host.reconcile() == 1
    assert not [line for line in host.machine.calls if runs_as_comfyui_s_user(line)]
    assert host.steps["comfyui-install"] == "failed"
    assert (
        "keep ComfyUI from the metadata server could not be put in force, so nothing is installed for it: no such"
        in host.warnings
    )
    host.machine.on_command = lambda _: None
    host.machine.calls.clear()
    assert host.reconcile() == 0
    kept_out = False
    for line in host.machine.calls:
        assert kept_out or not runs_as_comfyui_s_user(line), line
        kept_out = line.startswith("nft -f") and line.endswith("comfyweb/metadata-block.nft")


def test_a_release_that_may_not_be_installed_so_leaves_the_one_that_runs(host: Host) -> None:
    host.upgrade("v2", requirements="aiohttp>=3\n")
    host.machine.on_command = lambda line: Done(code=1, err="no such table") if "metadata-block.nft" in line else None
    host.reconcile()
    assert not [line for line in host.machine.calls if runs_as_comfyui_s_user(line)]
    assert host.release() == "# v1\n"
    assert "v1 goes on" in host.warnings


def test_where_the_image_has_a_jupyter_it_is_kept_from_comfyui_too(host: Host) -> None:
    rules = host.machine.paths.etc / units.RULES
    assert "8080" not in files.read(rules).partition("table")[2]
    with (host.machine.root / "etc/passwd").open("a") as users:
        users.write("jupyter:x:1001:1001::/home/jupyter:/bin/bash\n")
    host.reconcile()
    assert "tcp dport 8080 reject" in files.read(rules)
