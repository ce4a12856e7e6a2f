"""Certificates on a booted machine: by the real certbot from Pebble, and from a Cloud Storage that wants its token."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.host.authority import issue
from tests.machines import authorities
from tests.machines.first_boot import FirstBoot
from tests.machines.installed import Host, equip, put_disks
from tests.machines.machine import Machine
from tests.machines.network import GATEWAY, GUEST

NAME, OTHER = "comfy.example.com", "gpu.example.com"
BY_LETS_ENCRYPT = {"domain_name": NAME, "ssl_email": "me@example.com"}
CURRENT = "/var/lib/comfyweb/tls/current"
SERVICE = "comfyweb-certificates.service"
NAMELESS = {"mode": "none", "trusted": False, "name": "", "until": ""}
KEPT = "/var/lib/comfyweb/tls /var/lib/comfyweb/letsencrypt"


@pytest.fixture(scope="module")
def machine(first_boot: FirstBoot) -> Iterator[Machine]:
    """Boot a machine that knows its authority, and a Cloud Storage."""
    with Machine() as made:
        put_disks(first_boot.disks, equip(made))
        pebble = authorities.serve_pebble(made)
        authorities.serve_storage(made)
        Host(made).boot()
        made.wait_booted()
        authorities.trust(made, pebble)
        authorities.use_storage(made)
        yield made


@pytest.fixture
def host(machine: Machine) -> Host:
    """Let it be as it was when nobody had given it a name, whatever the test before has done."""
    found = Host(machine)
    machine.set_metadata(dict.fromkeys(("domain_name", "ssl_email", "cf_cert_path", "cf_key_path"), ""))
    for name in (NAME, OTHER):
        machine.forget(name)
    machine.sh(f"systemctl stop {SERVICE}; rm --recursive --force {KEPT}")
    found.reconcile()
    machine.until(lambda: tls(found) == NAMELESS and about(found) == [], "a machine without a name")
    return found


def tls(host: Host) -> dict[str, Any]:
    return host.status().get("tls", {})


def wait_for(host: Host, mode: str, name: str = NAME) -> dict[str, Any]:
    def there() -> bool:
        now = tls(host)
        return (now.get("mode"), now.get("name")) == (mode, name)

    host.machine.until(there, f"{mode} for {name}")
    return tls(host)


def serial(host: Host) -> str:
    return host.machine.sh(f"openssl x509 -in {CURRENT}/chain.pem -noout -serial")


def served(host: Host) -> str:
    """Return the serial number of what nginx shows to whoever asks for the name."""
    client = f"openssl s_client -connect {GUEST}:443 -servername {NAME} </dev/null 2>/dev/null"
    return host.machine.sh(f"{client} | openssl x509 -noout -serial", check=False)


def about(host: Host) -> list[str]:
    return [words for words in host.warnings() if words.startswith("Certificate:")]


def reboot(host: Host) -> None:
    host.machine.sh("systemctl poweroff")
    host.machine.wait_off()
    host.boot()
    host.machine.wait_booted()


def test_a_name_gets_its_certificate_and_only_root_reads_the_key(host: Host) -> None:
    host.machine.lead(NAME, GUEST)
    host.machine.set_metadata(BY_LETS_ENCRYPT)
    host.reconcile()
    now = wait_for(host, "letsencrypt")
    assert now["trusted"]
    assert f"DNS:{NAME}" in host.machine.sh(f"openssl x509 -in {CURRENT}/chain.pem -noout -text")
    assert host.machine.sh(f"stat -Lc '%a %U' {CURRENT}/key.pem /var/lib/comfyweb/tls") == "600 root\n700 root"
    for user in ("comfyui", "nobody"):
        assert host.machine.sh(f"su -s /bin/sh {user} -c 'cat {CURRENT}/key.pem' 2>&1 || echo no").endswith("no")
    assert "PRIVATE KEY" not in host.machine.journal()
    assert about(host) == []
    host.machine.until(lambda: served(host) == serial(host), "nginx with it")
    assert host.machine.sh("systemctl is-active comfyweb-certificates.timer") == "active"


def test_one_that_is_near_its_end_is_renewed_after_the_boot(host: Host) -> None:
    host.machine.lead(NAME, GUEST)
    host.machine.set_metadata(BY_LETS_ENCRYPT)
    host.reconcile()
    wait_for(host, "letsencrypt")
    first = serial(host)
    reboot(host)
    assert serial(host) == first
    assert host.machine.journal(SERVICE) == "", "a warm boot asks nobody"
    # Sixty-one days go by.
    host.machine.sh(
        "python3 - <<'END'\nimport json, pathlib\n"
        f"path = pathlib.Path('{CURRENT}/about.json')\nsaid = json.loads(path.read_text())\n"
        "path.write_text(json.dumps({**said, **{key: said[key] - 61 * 86400 for key in ('since', 'until')}}))\nEND"
    )
    reboot(host)
    host.machine.until(lambda: serial(host) != first, "another certificate")
    assert wait_for(host, "letsencrypt")["trusted"]
    assert about(host) == []


def test_while_the_name_leads_elsewhere_browsers_warn_and_then_it_mends_itself(host: Host) -> None:
    machine = host.machine
    machine.set_metadata(BY_LETS_ENCRYPT)
    host.reconcile()
    wait_for(host, "self-signed")
    machine.until(lambda: about(host), "words")
    assert "leads nowhere yet" in about(host)[0]
    machine.lead(NAME, GATEWAY)
    machine.until(lambda: GATEWAY in "".join(about(host)), "words of where it leads")
    machine.lead(NAME, GUEST)
    wait_for(host, "letsencrypt")
    machine.until(lambda: about(host) == [], "silence")


def test_another_name_has_a_certificate_at_once_and_the_way_back_asks_nobody(host: Host) -> None:
    for name in (NAME, OTHER):
        host.machine.lead(name, GUEST)
    host.machine.set_metadata(BY_LETS_ENCRYPT)
    host.reconcile()
    wait_for(host, "letsencrypt")
    first = serial(host)
    host.machine.set_metadata({"domain_name": OTHER})
    reboot(host)
    assert tls(host)["name"] == OTHER
    wait_for(host, "letsencrypt", OTHER)
    host.machine.set_metadata({"domain_name": NAME})
    reboot(host)
    assert serial(host) == first


def test_cloudflares_pair_comes_from_the_bucket_and_a_bad_one_never_replaces_it(host: Host) -> None:
    machine = host.machine
    good = issue("*.example.com")
    machine.set_metadata({"domain_name": NAME, **authorities.store(machine, "first", good)})
    host.reconcile()
    assert wait_for(host, "cloudflare")["trusted"]
    assert machine.sh(f"cat {CURRENT}/chain.pem") == good.chain.decode().strip()
    machine.set_metadata(authorities.store(machine, "second", replace(good, key=issue(NAME).key)))
    host.reconcile()
    machine.until(lambda: about(host), "words")
    assert "the key does not belong to the certificate" in about(host)[0]
    assert machine.sh(f"cat {CURRENT}/chain.pem") == good.chain.decode().strip()
    machine.set_metadata(authorities.store(machine, "third", newer := issue(NAME)))
    host.reconcile()
    machine.until(lambda: machine.sh(f"cat {CURRENT}/chain.pem") == newer.chain.decode().strip(), "the third pair")
    assert wait_for(host, "cloudflare")["trusted"]


def test_without_a_name_again_it_is_plain_http(host: Host) -> None:
    host.machine.set_metadata({"domain_name": NAME})
    host.reconcile()
    wait_for(host, "self-signed")
    host.machine.set_metadata({"domain_name": ""})
    host.reconcile()
    host.machine.until(lambda: tls(host)["mode"] == "none", "plain http")
