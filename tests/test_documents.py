"""Documents that go stale fail here: links, names, commands, and words that they put into the product's mouth."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from comfyweb.api.app import create_api
from comfyweb.control import terms
from comfyweb.settings import OLD, SECRETS, load, variables

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").rglob("*.md")])
SOURCES = [
    *(ROOT / "comfyweb").rglob("*.py"),
    *(ROOT / "vm_setup").rglob("*.py"),
    *(ROOT / "assets/js").glob("*.js"),
    ROOT / "vm_setup/startup.sh",
]
# Where what stands in double quotes is what the product says; an ellipsis stands for what is not always the same.
QUOTING = ("docs/troubleshooting.md", "docs/ssl.md", "docs/operations.md", "MIGRATION.md")
VARIES = "…"
CAPITALS = r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b"

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def prose(document: Path) -> str:
    """Return the text without its code blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def shell_blocks(document: Path) -> list[str]:
    """Return the commands that a reader is to type, block by block, without the indentation of a list."""
    found = re.findall(r"^( *)```sh\n(.*?)^ *```$", document.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(f"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def anchors(document: Path) -> set[str]:
    """Return what its headings are called in links, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def foreign_names() -> frozenset[str]:
    """Return names in capitals that our code reads or says beside the settings: Google's codes, others' variables.

    They stand in its texts; what is only the name of a constant is nothing that a reader could meet.
    """
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    code = [path for path in [*SOURCES, *tests] if path.suffix == ".py"]
    texts = [text for path in code for text in _python_texts(ast.parse(path.read_text()))]
    texts += [path.read_text() for path in [*ROOT.glob("vm_setup/units/*"), *ROOT.glob("compose*.yml")]]
    return frozenset(name for text in texts for name in re.findall(CAPITALS, text))


@cache
def sayings() -> tuple[str, ...]:
    """Return every text in the product's code, whole, with an ellipsis for each part that is filled in."""
    found: list[str] = []
    for path in SOURCES:
        if path.suffix == ".sh":
            found += re.findall(r"'([^'\n]+)'", path.read_text())
        elif path.suffix == ".js":
            joined = re.sub(r'" \+\s*"', "", path.read_text())
            found += re.findall(r'"([^"\n]+)"', joined)
            found += [re.sub(r"\$\{[^}]*\}", VARIES, text) for text in re.findall(r"`([^`]+)`", joined)]
        else:
            found += _python_texts(ast.parse(path.read_text()))
    return tuple(re.sub(r"\{\w+\}", VARIES, text) for text in found)


def _python_texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else VARIES for part in node.values)


def is_said(quote: str) -> bool:
    """Whether some text in the code has all parts of a quotation, in this order."""
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in quote.split(VARIES)), re.DOTALL)
    return any(pattern.search(saying) for saying in sayings())


def test_every_metadata_key_is_documented() -> None:
    settings = load(
        {
            "AUTH_PASSWORD": "a quiet river at dawn",
            "JWT_SECRET": "f8b1c2d3e4a5968778695a4b3c2d1e0f",
            "GCP_PROJECT": "demo-project",
            "STARTUP_SCRIPT_URL": "gs://bucket/host.sh",
            "COMFYUI_DOMAIN": "comfy.example.com",
            "SSL_EMAIL": "me@example.com",
            "CF_CERT_PATH": "gs://bucket/cert.pem",
            "CF_KEY_PATH": "gs://bucket/key.pem",
            "ALLOWED_IP": "198.51.100.7",
        },
        None,
    )
    written = set(re.findall(r"`([\w-]+)`", (ROOT / "docs/contract.md").read_text()))
    assert set(terms.policy(settings, "JWKS").metadata) <= written


@each_document
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    text = document.read_text()
    linked = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    named = re.findall(r"`((?:comfyweb|tests|docs|vm_setup|bench|assets|deploy)/[\w./-]*)`", text)
    missing = [name for name in linked if name and not (document.parent / name).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert missing == []


@each_document
def test_every_link_leads_to_a_heading_that_is_there(document: Path) -> None:
    links = [link.split("#") for link in re.findall(r"\]\(([^)]*#[^)]+)\)", prose(document)) if "://" not in link]
    lost = [
        f"{name}#{anchor}"
        for name, anchor in links
        if anchor not in anchors(document if not name else document.parent / name)
    ]
    assert lost == []


@each_document
def test_every_make_target_that_a_document_names_is_there(document: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = [*re.findall(r"`([^`\n]+)`", prose(document)), *shell_blocks(document)]
    named = {target for text in code for target in re.findall(r"\bmake ([a-z][\w-]*)", text)}
    assert named - targets == set()


@each_document
def test_every_variable_that_a_document_names_is_known_to_the_code(document: Path) -> None:
    settings = {*variables(), *OLD, *(f"{name}_FILE" for name in SECRETS)}
    assert set(re.findall(CAPITALS, document.read_text())) - settings - foreign_names() == set()


@each_document
def test_every_address_that_a_document_names_is_answered(document: Path) -> None:
    answered = {*create_api().openapi()["paths"], "/api/openapi.json", "/api/docs"}
    named = {path.rstrip("/") for path in re.findall(r"(/api/[a-z]+(?:/[a-z-]+)?(?:\.json)?)\b", document.read_text())}
    assert named - answered == set()


@each_document
def test_commands_are_good_shell(document: Path, tmp_path: Path) -> None:
    for number, block in enumerate(shell_blocks(document)):
        script = tmp_path / f"{number}.sh"
        script.write_text(f"#!/bin/bash\n{block}")
        checker = Path(sys.executable).with_name("shellcheck")
        # What one block sets, another uses; and what is to be run as it stands needs no guards.
        command = [checker, "--exclude=SC2154,SC2034,SC2164", script]
        checked = subprocess.run(command, check=False, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", QUOTING)
def test_what_the_product_is_said_to_say_is_what_it_says(name: str) -> None:
    quotes = re.findall(r'"([^"]+)"', re.sub(r"`[^`\n]*`", "", prose(ROOT / name)))
    assert quotes
    assert [quote for quote in quotes if not is_said(" ".join(quote.split()))] == []


@pytest.mark.parametrize(
    "quote", ["You would lock yourself out", "… leads to …, but the machine is at …", "this app brings …"]
)
def test_a_true_quotation_is_found(quote: str) -> None:
    assert is_said(quote)


@pytest.mark.parametrize("quote", ["You would lock yourself in", "the machine is at …, but … leads to"])
def test_a_false_quotation_is_not(quote: str) -> None:
    assert not is_said(quote)


# -- moving over -----------------------------------------------------------------------------------------------------


def test_every_variable_of_the_old_system_has_a_row_where_people_move_over() -> None:
    rows = re.findall(r"^\| (`.+?`) \|", (ROOT / "MIGRATION.md").read_text(), re.MULTILINE)
    assert set(OLD) <= {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_setting_that_keeps_its_name_is_named_where_people_move_over() -> None:
    kept = {"AUTH_PASSWORD", "JWT_SECRET", "GCP_PROJECT", "GCE_INSTANCE", "GCE_ZONE", "STARTUP_SCRIPT_URL"}
    kept |= {"COMFYUI_DOMAIN", "SSL_EMAIL", "CF_CERT_PATH", "CF_KEY_PATH", "ALLOWED_IP"}
    assert kept <= set(re.findall(r"`(\w+)`", (ROOT / "MIGRATION.md").read_text()))
    assert kept <= set(variables())
