"""Documents that go stale fail here."""

import re
from pathlib import Path

import pytest

from comfyweb.control import terms
from comfyweb.settings import load

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    text = document.read_text()
    linked = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    named = re.findall(r"`((?:comfyweb|tests|docs|vm_setup|bench|assets)/[\w./-]*)`", text)
    missing = [name for name in linked if name and not (document.parent / name).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    assert missing == []
