"""What the settings mean for the machine: its metadata, its longest run, and whether its page may be framed."""

from datetime import timedelta

import pytest

from comfyweb.control import terms
from comfyweb.machine.preparation import SCRIPT_MARK
from comfyweb.settings import Settings, load
from vm_setup.host.bundle import version_of

NEEDED = {
    "AUTH_PASSWORD": "a quiet river at dawn",
    "JWT_SECRET": "f8b1c2d3e4a5968778695a4b3c2d1e0f",
    "GCP_PROJECT": "demo-project",
}


def settings(**values: str) -> Settings:
    return load(NEEDED | values, None)


def test_a_machine_carries_our_keys_and_never_a_password() -> None:
    metadata = terms.policy(settings(ALLOWED_IP="198.51.100.7", COMFYUI_DOMAIN="comfy.example.com"), "JWKS").metadata
    assert metadata["comfyweb-keys"] == "JWKS"
    assert metadata["domain_name"] == "comfy.example.com"
    assert metadata["allowed_ip"] == "198.51.100.7"
    assert metadata["enable-guest-attributes"] == "TRUE"
    assert metadata["auth_user"] == metadata["auth_pass"] == metadata["comfyweb-command"] == ""
    assert NEEDED["AUTH_PASSWORD"] not in str(metadata)
    assert NEEDED["JWT_SECRET"] not in str(metadata)


def test_the_machine_gets_its_software_inline_or_by_address_never_both() -> None:
    inline = terms.policy(settings(), "").metadata
    assert SCRIPT_MARK in inline["startup-script"]
    assert version_of(inline["startup-script"]) == terms.place(settings()).host_version
    assert "startup-script-url" not in inline
    by_address = terms.policy(settings(STARTUP_SCRIPT_URL="gs://bucket/host.sh"), "").metadata
    assert by_address["startup-script-url"] == "gs://bucket/host.sh"
    assert "startup-script" not in by_address


def test_what_comfyui_is_and_where_it_comes_from_reaches_the_machine() -> None:
    metadata = terms.policy(
        settings(COMFYUI_RELEASE="v0.33.0", COMFYUI_GIT="https://git.example.com/ComfyUI.git"), ""
    ).metadata
    assert metadata["comfyweb-comfyui"] == "v0.33.0"
    assert metadata["comfyweb-comfyui-git"] == "https://git.example.com/ComfyUI.git"
    assert terms.policy(settings(), "").metadata["comfyweb-comfyui-git"] == "", "the host's own choice again"


def test_a_setting_that_is_not_set_leaves_the_machines_key_alone() -> None:
    assert {"allowed_ip", "domain_name", "startup-script-url"}.isdisjoint(terms.policy(settings(), "").metadata)


@pytest.mark.parametrize(("hours", "longest"), [("10", "10:15:00"), ("0.4", "0:30:00"), ("0.1", "0:15:00")])
def test_googles_own_limit_is_the_cap_and_a_quarter_of_an_hour_rounded_down_to_quarters(
    hours: str, longest: str
) -> None:
    assert str(terms.policy(settings(SESSION_CAP_HOURS=hours), "").max_run) == longest
    assert terms.policy(settings(SESSION_CAP_HOURS=hours), "").max_run % timedelta(minutes=15) == timedelta()


@pytest.mark.parametrize(
    ("page", "comfyui", "framed"),
    [
        ("http://localhost:3000", "http://localhost:3002", True),
        ("https://app.example.com", "https://comfy.example.com", True),
        ("https://app.example.com", "http://203.0.113.7", False),
        ("https://app.example.com", "", False),
        ("http://app.example.com", "https://comfy.example.com", False),
        ("http://app.example.com", "http://203.0.113.7", False),
    ],
)
def test_comfyui_is_framed_only_where_that_is_safe_and_works(page: str, comfyui: str, framed: bool) -> None:  # noqa: FBT001 - a table's column
    place = terms.place(settings(PUBLIC_URL=page, **({"COMFYUI_URL": comfyui} if comfyui else {})))
    assert place.embed is framed
    assert bool(place.embed_words) is not framed
