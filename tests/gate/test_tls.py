"""How strangers judge nginx's TLS: testssl looks at all that it offers, and everything must be what an A+ asks for.

Grades are those of SSL Labs (https://github.com/ssllabs/research/wiki/SSL-Server-Rating-Guide): A+ is TLS 1.2 and 1.3
alone, nothing but authenticated encryption with forward secrecy, HSTS for half a year or more, a trusted certificate
for the name, and no known weakness. testssl's own words for that are the severities `OK` and `INFO`.
"""

import asyncio
import json
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from tests.gate.front import NAME, certificate, front
from tests.host.authority import issue
from vm_setup.base.tls import CLOUDFLARE, LETS_ENCRYPT, SELF_SIGNED, Tls
from vm_setup.setup import web
from vm_setup.setup.web import Site

TESTSSL = shutil.which("testssl")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(TESTSSL is None, reason="needs testssl (testssl.sh)")]

ALL = ("--protocols", "--std", "--pfs", "--server-defaults", "--headers", "--vulnerable")
# What could differ with the certificate; the rest is the same text for nginx, and takes long.
SOME = ("--protocols", "--server-defaults", "--headers")
# Of the certificate's issuer and of the DNS, not of nginx: revocation is by lists that the authority's own certificates
# name, and nobody here has a zone with a CAA record. testssl also warns of an OpenSSL without the ciphers of GOST.
# Whether sessions are resumed is no part of any grade, and testssl can't always tell: its client's end is cut short.
ELSEWHERE = {"cert_revocation", "DNS_CAArecord", "engine_problem", "sessionresumption_ticket", "sessionresumption_ID"}
# What makes an A+ of no weakness.
BEST = {
    "SSLv2": "not offered",
    "SSLv3": "not offered",
    "TLS1": "not offered",
    "TLS1_1": "not offered",
    "TLS1_2": "offered",
    "TLS1_3": "offered",
}
BEST_CIPHERS = {
    "cipherlist_AVERAGE": "not offered",
    "cipherlist_STRONG": "offered",
}


async def test_a_trusted_certificate_gets_an_a_plus(tmp_path: Path) -> None:
    found = await scan(tmp_path, tls=issued(tmp_path, LETS_ENCRYPT, days=90), what=ALL)
    assert weaknesses(found) == {}
    assert said(found, BEST | BEST_CIPHERS) == BEST | BEST_CIPHERS
    assert found.keys() >= {"heartbleed", "ROBOT", "secure_renego", "BREACH", "LUCKY13"}, "it was looked for"
    for id_, words in {"PFS": "offered", "cert_trust": "ok", "cert_chain_of_trust": "passed"}.items():
        assert found[id_]["finding"].lower().startswith(words), id_
    assert found["HSTS_time"]["severity"] == "OK", "half a year or more"


async def test_a_self_signed_one_differs_in_nothing_but_whom_it_is_from(tmp_path: Path) -> None:
    found = await scan(tmp_path, tls=certificate(tmp_path), what=SOME)
    assert said(found, BEST) == BEST
    assert {id_ for id_ in weaknesses(found) if not id_.startswith("cert_")} == {"HSTS"}
    assert found["HSTS"]["finding"] == "not offered", "a browser must be able to go on, and to come back to another"


async def test_behind_cloudflare_its_proxy_finds_the_same(tmp_path: Path) -> None:
    found = await scan(tmp_path, tls=issued(tmp_path, CLOUDFLARE, days=15 * 365), what=SOME)
    assert weaknesses(found).keys() <= {"cert_extlifeSpan", "cert_validityPeriod"}, "an origin's lives 15 years"
    assert said(found, BEST) == BEST
    assert found["HSTS_time"]["severity"] == "OK"


async def test_a_weakened_configuration_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render = web.render

    def weakened(site: Site) -> str:
        text = render(replace(site, tls=replace(site.tls, trusted=False)))
        text = text.replace("ssl_protocols TLSv1.2 TLSv1.3;", "ssl_protocols TLSv1.1 TLSv1.2;")
        return text.replace("ssl_ciphers ", "ssl_ciphers ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0:")

    monkeypatch.setattr(web, "render", weakened)
    found = await scan(
        tmp_path, tls=issued(tmp_path, LETS_ENCRYPT, days=90), what=("--protocols", "--std", "--headers")
    )
    assert weaknesses(found).keys() >= {"TLS1_1", "cipherlist_AVERAGE", "HSTS"}
    assert said(found, BEST).items() ^ BEST.items() >= {("TLS1_1", "not offered"), ("TLS1_3", "offered")}


def issued(folder: Path, mode: str, *, days: int) -> Tls:
    """Return a certificate of an authority that testssl is told to trust."""
    pair = issue(NAME, until=timedelta(days=days))
    tls = Tls(mode=mode, chain=folder / "chain.pem", key=folder / "key.pem", trusted=True)
    tls.chain.write_bytes(pair.chain)
    tls.key.write_bytes(pair.key)
    mark = b"-----BEGIN CERTIFICATE-----"
    (folder / "authority.pem").write_bytes(mark + pair.chain.rpartition(mark)[2])
    return tls


async def scan(folder: Path, *, tls: Tls, what: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Return what testssl finds by its name; each with `severity` and `finding`. It asks nobody but nginx."""
    assert TESTSSL is not None
    report = folder / "report.json"
    trust = () if tls.mode == SELF_SIGNED else ("--add-ca", folder / "authority.pem")
    async with front(folder, tls=tls) as machine:
        command = (TESTSSL, "--quiet", "--warnings", "batch", "--nodns", "none", "--ip", "127.0.0.1", *trust, *what)
        process = await asyncio.create_subprocess_exec(
            *command,
            *("--jsonfile", report, f"{NAME}:{machine.port}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        words, _ = await process.communicate()
    assert process.returncode is not None
    found: list[dict[str, str]] = json.loads(report.read_text()) if report.exists() else []
    assert any(each["id"] == "scanTime" for each in found), words.decode(errors="replace")
    return {each["id"]: each for each in found}


def weaknesses(found: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return whatever testssl finds fault with."""
    faults = {id_: each for id_, each in found.items() if each["severity"] not in {"OK", "INFO"}}
    return {id_: f"{each['severity']}: {each['finding']}" for id_, each in faults.items() if id_ not in ELSEWHERE}


def said(found: dict[str, dict[str, str]], about: dict[str, str]) -> dict[str, str]:
    """Return what testssl says about these, without what it adds in brackets or after `with`."""
    return {id_: found[id_]["finding"].partition(" with ")[0].partition(" (")[0] for id_ in about}
