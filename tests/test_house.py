"""Who may import whom, by reading every module. See docs/architecture.md, "The house"."""

import ast
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("comfyweb", "vm_setup")
EXTENSION = ROOT / "vm_setup/extension/__init__.py"  # is read by ComfyUI, which looks for its names there
INNER = frozenset({"machine", "settings", "settings_checks"})
MIDDLE = INNER | {"cloud", "access"}
# A room, and the rooms it may look into besides itself.
MAY_IMPORT: dict[str, frozenset[str]] = {
    "machine": frozenset(),
    "settings_checks": frozenset(),
    "logs": frozenset(),
    "settings": frozenset({"settings_checks"}),
    "cloud": INNER,
    "access": INNER,
    "control": MIDDLE | {"logs"},
    "api": MIDDLE | {"control", "logs"},
    "ui": MIDDLE | {"control", "logs"},
    "comfyweb": MIDDLE | {"control", "api", "ui"},
    "__main__": frozenset({"logs", "settings", "settings_checks", "ui", "doctor"}),
    "doctor": MIDDLE | {"control"},
    "demo": frozenset(),
}
# The same of the machine's programs. `base` is what all of them share, `host` the rules that need nothing.
MACHINE_MAY_IMPORT: dict[str, frozenset[str]] = {
    "host": frozenset(),
    "base": frozenset({"host"}),
    "setup": frozenset({"host", "base"}),
    "keeper": frozenset({"host", "base"}),
    "gate": frozenset({"host", "base"}),
    "extension": frozenset(),
    "bundle": frozenset({"host"}),
    "__main__": frozenset(),
    "__init__": frozenset(),
}
# All that a judgement needs. No clock is among it, no file and no socket: a judgement is told what it judges.
PURE = frozenset(
    {"collections", "comfyweb", "dataclasses", "datetime", "decimal", "enum", "functools", "ipaddress", "itertools"}
    | {"math", "re", "types", "typing"}
)


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def imported(source: str) -> list[str]:
    """Return the dotted names that a module imports; `from a import b` counts as a.b, for b may be a module."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def room(path: Path) -> str:
    """Return the room of a module: its folder in comfyweb/, or its own name when it lies at the top."""
    return path.relative_to(ROOT / "comfyweb").parts[0].removesuffix(".py")


def strangers(room_: str, names: Iterable[str]) -> list[str]:
    """Return what a module in this room imports of ours and may not."""
    allowed = {f"comfyweb.{name}" for name in MAY_IMPORT[room_] | {room_}}
    if room_ == "demo":
        allowed.add("vm_setup.host")
    if room_ in {"control", "doctor"}:  # the app brings the machine its software, and reads as it does who may come
        allowed |= {"vm_setup.bundle", "vm_setup.host.bundle", "vm_setup.host.allowed", "vm_setup.host.cloudflare"}
    ours = [name for name in names if name.split(".")[0] in PACKAGES]
    return [name for name in ours if not any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed)]


def machine_room(path: Path) -> str:
    """Return the room of a module of the machine's."""
    return path.relative_to(ROOT / "vm_setup").parts[0].removesuffix(".py")


def machine_strangers(room_: str, names: Iterable[str]) -> list[str]:
    """Return what a module in this room of the machine's imports of ours and may not."""
    allowed = {f"vm_setup.{name}." for name in MACHINE_MAY_IMPORT[room_] | {room_}}
    ours = [name for name in names if name.split(".")[0] in PACKAGES]
    return [name for name in ours if not any(f"{name}.".startswith(prefix) for prefix in allowed)]


def test_every_room_has_a_rule() -> None:
    rooms = {room(path) for path in modules("comfyweb")}
    assert rooms - {"__init__"} == MAY_IMPORT.keys()
    assert {machine_room(path) for path in modules("vm_setup")} == MACHINE_MAY_IMPORT.keys()


@pytest.mark.parametrize("path", modules("comfyweb"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_looks_only_where_it_may(path: Path) -> None:
    if path == ROOT / "comfyweb/__init__.py":
        assert not imported(path.read_text())
    else:
        assert strangers(room(path), imported(path.read_text())) == []


@pytest.mark.parametrize(
    ("room_", "source"),
    [
        ("machine", "import comfyweb.settings"),
        ("machine", "from comfyweb import settings"),
        ("cloud", "from comfyweb.access.sessions import Session"),
        ("ui", "from comfyweb.api.app import create_api"),
        ("api", "import comfyweb.ui.live"),
        ("comfyweb", "from comfyweb.demo import box"),
        ("control", "def later():\n    from comfyweb.ui import live"),
        ("demo", "from comfyweb.machine.model import Phase"),
        ("demo", "import vm_setup.startup"),
        ("control", "from vm_setup.setup import reconcile"),
        ("cloud", "from vm_setup import bundle"),
        ("ui", "import comfyweb.demography"),
    ],
)
def test_a_wrong_import_is_found(room_: str, source: str) -> None:
    assert strangers(room_, imported(source))


@pytest.mark.parametrize("path", modules("vm_setup"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_program_of_the_machine_knows_nothing_of_the_app_nor_of_another(path: Path) -> None:
    assert machine_strangers(machine_room(path), imported(path.read_text())) == []


@pytest.mark.parametrize(
    ("room_", "source"),
    [
        ("host", "from vm_setup.base import files"),
        ("base", "from vm_setup.keeper.world import World"),
        ("setup", "from vm_setup.keeper import metadata"),
        ("keeper", "import vm_setup.setup.disk"),
        ("gate", "from vm_setup.setup import units"),
        ("setup", "from comfyweb.machine import model"),
        ("keeper", "from vm_setup import bundle"),
    ],
)
def test_a_wrong_import_on_the_machine_is_found(room_: str, source: str) -> None:
    assert machine_strangers(room_, imported(source))


@pytest.mark.parametrize("path", modules("vm_setup"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_host_needs_nothing_that_would_have_to_be_installed(path: Path) -> None:
    found = {name.split(".")[0] for name in imported(path.read_text())} - sys.stdlib_module_names
    asked_for_first = {"cryptography"} if path.name == "signatures.py" else set[str]()
    comes_with_comfyui = {"aiohttp", "comfy_execution", "server"} if path == EXTENSION else set[str]()
    assert found <= {"vm_setup"} | asked_for_first | comes_with_comfyui


@pytest.mark.parametrize("path", modules("comfyweb/machine"), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_machine_is_judged_without_looking_at_the_world(path: Path) -> None:
    assert [name for name in imported(path.read_text()) if name.split(".")[0] not in PURE] == []
    calls = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not calls & {"now", "utcnow", "today"}


@pytest.mark.parametrize(
    "path", [path for folder in PACKAGES for path in modules(folder)], ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_module_says_in_its_first_line_why_it_exists(path: Path) -> None:
    tree = ast.parse(path.read_text())
    first = (ast.get_docstring(tree) or "").partition("\n")[0]
    assert first.endswith((".", "?", ":")), f"{path.name} begins with {first!r}"
    if path.name == "__init__.py" and path != EXTENSION:
        assert len(tree.body) == 1, "a package holds its line and nothing else"


@pytest.mark.parametrize(
    "path",
    sorted(path for folder in ("units", "nginx") for path in (ROOT / "vm_setup" / folder).iterdir()),
    ids=lambda path: path.name,
)
def test_a_file_for_the_machine_says_in_its_first_lines_why_it_exists(path: Path) -> None:
    first, second, *_ = (line.strip() for line in path.read_text().splitlines())
    assert first.startswith("# ") or (path.suffix == ".html" and second.startswith("<!--"))
