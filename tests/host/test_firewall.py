"""What the firewall's files say for what is asked, and how they come into force. That they work: test_doors.py."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.host.machine import Host, Machine
from vm_setup.base import files
from vm_setup.host import cloudflare as published
from vm_setup.setup import cloudflare, firewall, units
from vm_setup.setup.metadata import Wanted
from vm_setup.setup.system import Done, Trouble

PAIR = {"cf_cert_path": "gs://keys/cert.pem", "cf_key_path": "gs://keys/key.pem", "domain_name": "comfy.example.com"}
WALL = datetime(2026, 11, 25, tzinfo=UTC).timestamp()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, disk_bytes=0)


def ensure(machine: Machine, **attributes: str) -> str:
    firewall.ensure(machine.system, machine.steps, Wanted.read(attributes))
    return files.read(machine.paths.etc / firewall.RULES)


def warnings(machine: Machine) -> str:
    return str(files.read_object(machine.paths.runtime / "steps.json").get("warnings", ""))


def test_what_is_in_force_is_on_disk_for_the_next_boot_and_is_done_once(machine: Machine) -> None:
    text = ensure(machine, allowed_ip="203.0.113.7")
    assert "203.0.113.7" in text
    assert [call.split()[0] for call in machine.calls] == ["nft", "systemctl", "systemctl"]
    assert machine.calls[-1] == f"systemctl reload-or-restart {units.FIREWALL}"
    assert (machine.paths.units / "sysinit.target.wants" / units.FIREWALL).is_symlink()
    machine.calls.clear()
    ensure(machine, allowed_ip="203.0.113.7")
    assert machine.calls == []


def test_rules_that_nft_refuses_replace_nothing(machine: Machine) -> None:
    before = ensure(machine, allowed_ip="203.0.113.7")
    visitors = files.read(machine.paths.etc / firewall.VISITORS)
    machine.on_command = lambda line: Done(code=1, err="syntax error") if "--check" in line else None
    with pytest.raises(Trouble, match="former ones stay: syntax error"):
        ensure(machine, allowed_ip="203.0.113.8")
    assert files.read(machine.paths.etc / firewall.RULES) == before
    assert files.read(machine.paths.etc / firewall.VISITORS) == visitors
    assert not any("reload" in call for call in machine.calls[3:])


def test_what_was_cut_off_between_disk_and_force_is_made_up_for(machine: Machine) -> None:
    machine.on_command = lambda line: Done(code=1, err="no bus") if "reload-or-restart" in line else None
    with pytest.raises(Trouble, match="no bus"):
        ensure(machine, allowed_ip="203.0.113.7")
    machine.on_command = lambda _: None
    machine.calls.clear()
    ensure(machine, allowed_ip="203.0.113.7")
    assert machine.calls == [f"systemctl reload-or-restart {units.FIREWALL}"]


def test_when_no_entry_is_good_the_last_good_ones_stay(machine: Machine) -> None:
    good = ensure(machine, allowed_ip="203.0.113.7")
    assert ensure(machine, allowed_ip="203.0.113.7/33, home") == good
    assert "those that it held before stay in force" in warnings(machine)


def test_without_any_earlier_one_the_web_is_for_the_app_alone_and_ssh_for_everybody(machine: Machine) -> None:
    text = ensure(machine, **{"allowed_ip": "home", "comfyweb-app-ip": "198.51.100.1"})
    assert "webip { type ipv4_addr; flags interval; elements = { 198.51.100.1/32 }" in text
    assert "tcp dport 22 accept" in text
    assert "ssh stays open" in warnings(machine)


def test_a_restriction_that_was_taken_back_is_forgotten(machine: Machine) -> None:
    ensure(machine, allowed_ip="203.0.113.7")
    assert "203.0.113.7" not in ensure(machine)
    assert "203.0.113.7" not in ensure(machine, allowed_ip="home")


def test_what_is_no_address_gets_into_no_file(machine: Machine) -> None:
    ensure(machine, allowed_ip='203.0.113.7;}include"/etc/shadow', **{"comfyweb-app-ip": "1;default 1"})
    for name in (firewall.RULES, firewall.VISITORS):
        assert "include" not in files.read(machine.paths.etc / name)
        assert "default 1" not in files.read(machine.paths.etc / name)


def test_a_machine_says_which_entries_let_nobody_in(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.attributes |= {"allowed_ip": "203.0.113.7, 203.0.113.9/99", "comfyweb-app-ip": "app.example.com"}
    host.reconcile()
    assert "allowed_ip: '203.0.113.9/99' lets nobody in" in host.warnings
    assert "comfyweb-app-ip: 'app.example.com' lets nobody in" in host.warnings


def test_rules_that_fail_are_told_and_hold_up_nothing_else(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.machine.on_command = lambda line: Done(code=1, err="no such kernel") if "firewall.nft" in line else None
    assert host.reconcile() == 1
    assert host.steps["firewall"] == "failed"
    assert host.steps["comfyui"] == "done"
    assert "no such kernel" in host.warnings


def test_only_behind_cloudflare_its_word_for_a_visitor_is_believed(machine: Machine) -> None:
    ensure(machine, allowed_ip="203.0.113.7", domain_name="comfy.example.com")
    assert "CF-Connecting-IP" not in files.read(machine.paths.etc / firewall.VISITORS)
    text = ensure(machine, allowed_ip="203.0.113.7", **PAIR)
    said = files.read(machine.paths.etc / firewall.VISITORS)
    assert "real_ip_header CF-Connecting-IP;" in said
    for network in published.SHIPPED:
        assert f"set_real_ip_from {network};" in said
        assert f"  {network} 1;" not in said, "Cloudflare brings visitors; it is none"
        assert str(network) in text


NEWER = ["104.16.0.0/13\n172.64.0.0/13\n", "2606:4700::/32\n"]


def fetched(*texts: str) -> dict[str, str]:
    return dict(zip(published.ADDRESSES, texts, strict=True))


def test_cloudflares_own_list_takes_the_place_of_the_bundles(machine: Machine) -> None:
    assert cloudflare.networks(machine.paths) == published.SHIPPED
    assert cloudflare.refresh(machine.paths, wall=WALL, fetch=fetched(*NEWER).__getitem__)
    assert [str(network) for network in cloudflare.networks(machine.paths)] == " ".join(NEWER).split()
    assert "set_real_ip_from 108.162.192.0/18;" not in (
        ensure(machine, **PAIR) + files.read(machine.paths.etc / firewall.VISITORS)
    )


def test_it_is_asked_for_once_in_thirty_days(machine: Machine) -> None:
    asked: list[str] = []

    def fetch(address: str) -> str:
        asked.append(address)
        return fetched(*NEWER)[address]

    for days in (0, 1, 29, 31):
        cloudflare.refresh(machine.paths, wall=WALL + days * 86400, fetch=fetch)
    assert asked == [*published.ADDRESSES, *published.ADDRESSES]


def test_what_can_not_be_cloudflares_list_changes_nothing(machine: Machine) -> None:
    def silent(address: str) -> str:
        raise Trouble(f"{address} does not answer")

    for fetch in (silent, fetched("<html>Sign in</html>", NEWER[1]).__getitem__):
        assert not cloudflare.refresh(machine.paths, wall=WALL, fetch=fetch)
        assert cloudflare.networks(machine.paths) == published.SHIPPED


@pytest.mark.parametrize("kept", ["{ cut o", '{"date": "2030-01-01", "networks": "0.0.0.0/0 ::/0"}', '{"date": 7}'])
def test_a_kept_list_that_is_spoilt_does_not_count(machine: Machine, kept: str) -> None:
    machine.put(f"var/lib/comfyweb/{cloudflare.KEPT}", kept)
    assert cloudflare.networks(machine.paths) == published.SHIPPED
