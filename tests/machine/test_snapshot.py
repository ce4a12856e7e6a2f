"""What the picture says beside the phase."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import pytest

from comfyweb.machine.decide import decide
from comfyweb.machine.model import Certificate, HostSeen, MachineSeen, NameSeen, Observation, Policy
from comfyweb.machine.snapshot import History, Place, picture

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
POLICY = Policy(
    metadata={},
    running_metadata=frozenset(),
    max_run=timedelta(hours=10),
    session_cap=timedelta(hours=10),
    drain=timedelta(minutes=30),
)


def notices(runs: str, brings: str, *, renewed: bool = True) -> str:
    """What people are told when a machine runs one version of the host software and the app brings another."""
    seen = Observation(
        machine=MachineSeen(at=NOW, status="RUNNING", zone="z", last_started=NOW - timedelta(minutes=5)),
        host=HostSeen(at=NOW, boot_id="b", phase="ready", host_version=runs, comfyui_ready=True),
    )
    place = Place(project="p", zone="z", instance="i", host_version=brings, host_renewed=renewed)
    told = picture(decide(None, seen, POLICY, NOW), None, seen, place, History(), NOW).body["notices"]
    return " ".join(notice for notice in told if "host software" in notice)


def test_another_host_software_than_the_apps_is_told_and_what_renews_it() -> None:
    assert "runs host software 0.1.0+a, this app brings 0.1.0+b" in notices("0.1.0+a", "0.1.0+b")
    assert "next started" in notices("0.1.0+a", "0.1.0+b")
    assert "make host-bundle" in notices("0.1.0+a", "0.1.0+b", renewed=False)


def body(
    host: HostSeen | None = None,
    name_seen: NameSeen | None = None,
    unheard: str = "",
    metadata: Mapping[str, str] | None = None,
    **place: Any,
) -> dict[str, Any]:
    """What people see of a machine that has been on for an hour."""
    seen = Observation(
        machine=MachineSeen(
            at=NOW,
            status="RUNNING",
            zone="z",
            external_ip="34.72.1.9",
            last_started=NOW - timedelta(hours=1),
            metadata=metadata or {},
        ),
        host=host,
        name=name_seen,
        unheard=unheard,
    )
    where = Place(project="p", zone="z", instance="i", proxies=(ip_network("104.16.0.0/13"),), **place)
    return picture(decide(None, seen, POLICY, NOW), None, seen, where, History(), NOW).body


def host(**said: Any) -> HostSeen:
    return HostSeen(at=NOW, boot_id="b", phase="ready", comfyui_ready=True, **said)


def test_the_certificate_is_told_as_the_host_tells_it_and_complained_of_when_browsers_would() -> None:
    own = Certificate(mode="self-signed", trusted=False, name="comfy.example.com", until=NOW + timedelta(days=60))
    told = body(host(certificate=own), name="comfy.example.com")
    assert told["certificate"]["words"] == "made by the machine itself, until 23 January 2027"
    assert [said for said in told["notices"] if "made itself" in said]
    assert not [said for said in body(host(certificate=own))["notices"] if "made itself" in said], "there is no name"
    assert body()["certificate"] is None


def test_a_machine_that_goes_by_a_name_which_the_app_was_not_told_is_told_with_the_ways_out() -> None:
    named = {"domain_name": "comfy.example.com"}
    [notice] = [said for said in body(metadata=named)["notices"] if "was not told" in said]
    assert "COMFYUI_DOMAIN to comfy.example.com" in notice
    assert "remove the key domain_name from the metadata of i" in notice
    for told in (body(), body(metadata=named, comfyui_url="https://comfy.example.com")):
        assert not [said for said in told["notices"] if "was not told" in said]


def test_the_limit_of_uploads_is_told_where_they_go_by_cloudflare() -> None:
    behind = NameSeen(name="comfy.example.com", addresses=("104.16.1.1",))
    origin = Certificate(mode="cloudflare", trusted=True)
    assert body()["upload_limit_mb"] is None
    assert body(host(), NameSeen(name="comfy.example.com", addresses=("34.72.1.9",)))["upload_limit_mb"] is None
    for told in (body(cloudflare=True), body(host(certificate=origin)), body(name_seen=behind)):
        assert told["upload_limit_mb"] == 100


def test_why_comfyui_cannot_be_reached_from_here_is_told_with_its_reason() -> None:
    by_google = replace(host(), by_https=False)
    [notice] = [said for said in body(by_google, unheard="It is so.")["notices"] if "reached from here" in said]
    assert notice == "ComfyUI's address cannot be reached from here (It is so); what is shown came by way of Google."


@pytest.mark.parametrize(("runs", "brings"), [("0.1.0+a", "0.1.0+a"), ("", "0.1.0+a"), ("0.1.0+a", "")])
def test_where_nothing_differs_or_nobody_knows_nothing_is_told(runs: str, brings: str) -> None:
    assert notices(runs, brings) == ""
