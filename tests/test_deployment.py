"""The machine that the README's lines and the Terraform module make is the one that the code needs.

Neither gcloud nor Terraform can be had here. The lines are run by bash with a stand-in that notes what it was asked, so
their quoting and their variables are tried; the module is parsed.
"""

import json
import re
import stat
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import pytest

from comfyweb.cloud.compute import PERMISSIONS
from comfyweb.settings import Settings, load
from tests.test_documents import ROOT, shell_blocks
from vm_setup.base.paths import DISK

MODULE = ROOT / "deploy/terraform"
PORTS = {"80", "443"}
ACT_AS = "iam.serviceAccounts.actAs"
INSTANCE = Settings.model_fields["gce_instance"].default
ZONE = Settings.model_fields["gce_zone"].default
# udev's link for a disk with this device name (google-guest-configs, 65-gce-disk-naming.rules).
DEVICE = DISK.rpartition("google-")[2]
GCLOUD = f"""#!{sys.executable}
import json, pathlib, sys
with (pathlib.Path(__file__).parent / "asked").open("a") as asked:
    asked.write(json.dumps(sys.argv[1:]) + "\\n")
"""


def test_the_device_name_is_known() -> None:
    assert DEVICE == "persistent-comfyui"


# -- gcloud ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """Run the README's lines, and return what gcloud was asked."""
    folder = tmp_path_factory.mktemp("gcloud")
    program = folder / "gcloud"
    program.write_text(GCLOUD)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    [block] = [block for block in shell_blocks(ROOT / "README.md") if "gcloud" in block]
    environ = {"PATH": f"{folder}:/usr/bin:/bin"}
    subprocess.run(["bash", "-eu", "-c", block], check=True, cwd=folder, env=environ)
    return [json.loads(line) for line in (folder / "asked").read_text().splitlines()]


def one(asked: list[list[str]], *words: str) -> dict[str, str]:
    """Return the flags of the one call that begins so; what it is about is under the empty name."""
    [call] = [call[len(words) :] for call in asked if tuple(call[: len(words)]) == words]
    flags = [word for word in call if word.startswith("--")]
    assert all(re.fullmatch(r"--[a-z-]+(=.+)?", flag) for flag in flags), "a value is apart from its flag"
    named = {flag.partition("=")[0][2:]: flag.partition("=")[2] for flag in flags}
    return named | {"": " ".join(word for word in call if not word.startswith("--"))}


def roles(asked: list[list[str]]) -> dict[str, set[str]]:
    made = [call for call in asked if call[:3] == ["iam", "roles", "create"]]
    return {
        call[3]: set(next(word for word in call if word.startswith("--permissions=")).partition("=")[2].split(","))
        for call in made
    }


def test_the_lines_give_the_permissions_that_the_code_needs_and_no_other(asked: list[list[str]]) -> None:
    given = roles(asked)
    assert sorted([*given["comfyweb"], *given["comfywebOperations"], ACT_AS]) == sorted(PERMISSIONS)
    on_the_machine = one(asked, "compute", "instances", "add-iam-policy-binding")
    on_the_project = one(asked, "projects", "add-iam-policy-binding")
    on_the_account = one(asked, "iam", "service-accounts", "add-iam-policy-binding")
    assert on_the_machine["role"] == "projects/my-project/roles/comfyweb"
    assert on_the_project["role"] == "projects/my-project/roles/comfywebOperations"
    assert on_the_account["role"] == "roles/iam.serviceAccountUser"
    assert on_the_account[""] == one(asked, "compute", "instances", "create")["service-account"]
    assert {bound["member"] for bound in (on_the_machine, on_the_project, on_the_account)} == {
        "serviceAccount:comfyweb@my-project.iam.gserviceaccount.com"
    }


def test_the_lines_make_the_machine_that_the_settings_mean(asked: list[list[str]]) -> None:
    made = one(asked, "compute", "instances", "create")
    assert (made[""], made["zone"]) == (INSTANCE, ZONE)
    assert made["accelerator"] == "type=nvidia-tesla-t4,count=1"
    assert made["maintenance-policy"] == "TERMINATE", "machines with a GPU can't be moved"
    disk = dict(part.split("=") for part in made["create-disk"].split(","))
    assert (disk["name"], disk["device-name"], disk["auto-delete"]) == ("comfyui", DEVICE, "no")
    assert one(asked, "compute", "instances", "stop") == {"": INSTANCE, "zone": ZONE}


def test_the_lines_give_it_an_address_that_stays_and_open_its_ports(asked: list[list[str]]) -> None:
    made = one(asked, "compute", "instances", "create")
    address = one(asked, "compute", "addresses", "create")
    assert (address[""], address["region"]) == (made["address"], "us-central1")
    rule = one(asked, "compute", "firewall-rules", "create")
    assert set(rule["allow"].split(",")) == {f"tcp:{port}" for port in PORTS}
    assert rule["target-tags"] == made["tags"]


def test_the_settings_that_the_readme_writes_are_accepted_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [block] = [block for block in shell_blocks(ROOT / "README.md") if "cat > .env" in block]
    (tmp_path / "sa-key.json").write_text("{}")
    environ = {"PATH": "/usr/bin:/bin", "PROJECT": "my-project", "ZONE": "us-central1-a"}
    subprocess.run(["bash", "-eu", "-c", block], check=True, cwd=tmp_path, env=environ)
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    monkeypatch.chdir(tmp_path)
    settings = load({}, tmp_path / ".env")
    assert settings.warnings == ()
    assert settings.same_site
    assert settings.google_application_credentials == tmp_path / "sa-key.json"


def test_the_readmes_two_commands_are_in_the_makefile() -> None:
    for command in ("make run", "make test", "make build"):
        assert any(command in block.splitlines() for block in shell_blocks(ROOT / "README.md"))
        subprocess.run(["make", "--dry-run", command.split()[1]], check=True, cwd=ROOT, capture_output=True)


# -- Terraform -------------------------------------------------------------------------------------------------------


def plain(value: Any) -> Any:
    """Take the quotes off the parser's strings and names."""
    if isinstance(value, dict):
        return {str(plain(name)): plain(part) for name, part in value.items() if name != "__is_block__"}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return value.strip('"') if isinstance(value, str) else value


@cache
def module() -> dict[str, Any]:
    """Return the module: its blocks by kind, type and name."""
    found: dict[str, Any] = {}
    for path in sorted(MODULE.glob("*.tf")):
        for kind, blocks in plain(hcl2.loads(path.read_text())).items():
            for block in blocks:
                for name, inner in block.items():
                    place = found.setdefault(kind, {}).setdefault(name, {})
                    place.update(inner if isinstance(inner, dict) else {"": inner})
    return found


def resource(kind: str, name: str) -> dict[str, Any]:
    return dict(module()["resource"][kind][name])


def test_the_module_gives_the_permissions_that_the_code_needs_and_no_other() -> None:
    given = module()["resource"]["google_project_iam_custom_role"]
    permissions = [permission for role in given.values() for permission in role["permissions"]]
    assert sorted([*permissions, ACT_AS]) == sorted(PERMISSIONS)
    assert given["operations"]["permissions"] == [p for p in PERMISSIONS if not p.startswith(("compute.inst", "iam."))]
    bound = {kind: parts for kind, parts in module()["resource"].items() if "_iam_member" in kind}
    assert {kind: parts["comfyweb"]["role"] for kind, parts in bound.items()} == {
        "google_compute_instance_iam_member": "${google_project_iam_custom_role.machine.id}",
        "google_project_iam_member": "${google_project_iam_custom_role.operations.id}",
        "google_service_account_iam_member": "roles/iam.serviceAccountUser",
    }
    assert {parts["comfyweb"]["member"] for parts in bound.values()} == {"${google_service_account.comfyweb.member}"}


def test_the_module_makes_the_machine_that_the_settings_mean() -> None:
    defaults = {name: variable.get("default") for name, variable in module()["variable"].items()}
    assert (defaults["instance"], defaults["zone"]) == (INSTANCE, ZONE)
    assert defaults["project"] is None
    machine = resource("google_compute_instance", "comfyui")
    [disk] = machine["attached_disk"]
    assert disk == {"source": "${google_compute_disk.comfyui.id}", "device_name": DEVICE}
    assert resource("google_compute_disk", "comfyui")["name"] == "comfyui"
    assert resource("google_compute_disk", "comfyui")["lifecycle"] == [{"prevent_destroy": True}]
    assert machine["scheduling"][0]["on_host_maintenance"] == "TERMINATE"


def test_the_module_leaves_alone_what_the_app_changes_on_the_machine() -> None:
    machine = resource("google_compute_instance", "comfyui")
    assert machine["lifecycle"] == [{"ignore_changes": ["metadata", "scheduling"]}]
    assert "metadata" not in machine


def test_the_module_opens_the_ports_of_the_machine() -> None:
    rule = resource("google_compute_firewall", "web")
    assert [set(allowed["ports"]) for allowed in rule["allow"]] == [PORTS]
    assert rule["target_tags"] == resource("google_compute_instance", "comfyui")["tags"]


def test_the_module_and_the_lines_make_the_same_machine(asked: list[list[str]]) -> None:
    made = one(asked, "compute", "instances", "create")
    defaults = {name: variable.get("default") for name, variable in module()["variable"].items()}
    assert made["machine-type"] == defaults["machine_type"]
    assert made["accelerator"] == f"type={defaults['gpu']},count=1"
    assert f"{made['image-project']}/{made['image-family']}" == defaults["image"]
    assert f"size={defaults['disk_gb']}GB" in made["create-disk"].split(",")
    assert resource("google_compute_instance", "comfyui")["service_account"][0]["scopes"] == [made["scopes"]]


def test_everything_that_the_module_refers_to_is_in_it() -> None:
    text = "\n".join(path.read_text() for path in MODULE.glob("*.tf"))
    made = {f"{kind}.{name}" for kind, parts in module()["resource"].items() for name in parts}
    assert {match[0] for match in re.finditer(r"\bgoogle_\w+\.\w+(?=\.\w)", text)} <= made
    assert set(re.findall(r"\bvar\.(\w+)", text)) == set(module()["variable"])
