"""Who may come is changed while the machine runs."""

from pathlib import Path

import pytest

from tests.host import surroundings
from tests.host.keeping import keeping
from tests.host.machine import Host
from tests.host.surroundings import until
from vm_setup.base import files
from vm_setup.setup import firewall, metadata
from vm_setup.setup.metadata import Silent
from vm_setup.setup.system import Done
from vm_setup.setup.visitors import follow

DOMAIN = {"domain_name": "comfy.example.com"}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Return a machine that was set up for one visitor, who came with its boot."""
    host = Host(tmp_path)
    host.attributes |= {"allowed_ip": "203.0.113.7", "comfyweb-app-ip": "198.51.100.1"}
    assert host.reconcile() == 0
    host.machine.calls.clear()
    return host


def change(host: Host, **attributes: str) -> int:
    host.attributes |= {name.replace("app_ip", "comfyweb-app-ip"): value for name, value in attributes.items()}
    return follow(host.machine.system, host.read)


def rules(host: Host) -> str:
    return files.read(host.machine.paths.etc / firewall.RULES)


def visitors(host: Host) -> str:
    return files.read(host.machine.paths.etc / firewall.VISITORS)


def test_firewall_and_nginx_go_over_to_the_new_list_and_nothing_else_is_touched(host: Host) -> None:
    assert change(host, allowed_ip="203.0.113.8", app_ip="198.51.100.2") == 0
    for text in (rules(host), visitors(host)):
        assert "203.0.113.8" in text
        assert "198.51.100.2" in text
        assert "203.0.113.7" not in text
    loads = [call for call in host.machine.calls if "systemctl" in call]
    assert loads == [f"systemctl reload-or-restart comfyweb-{name}.service" for name in ("firewall", "nginx")]


def test_it_is_what_the_next_boot_begins_with(host: Host) -> None:
    change(host, allowed_ip="203.0.113.8")
    assert (metadata.last_good(host.machine.paths) or {})["allowed_ip"] == "203.0.113.8"
    host.silent = 10_000
    host.machine.reboot()
    host.reconcile()
    assert "203.0.113.8" in rules(host)


def test_what_else_has_changed_waits_for_the_next_start(host: Host) -> None:
    host.attributes |= DOMAIN
    change(host, allowed_ip="203.0.113.8")
    assert "tcp dport 80 accept" not in rules(host)
    assert "domain_name" not in (metadata.last_good(host.machine.paths) or {})


def test_a_bad_entry_is_told_until_it_is_mended_and_the_others_count(host: Host) -> None:
    assert change(host, allowed_ip="203.0.113.8, oops") == 0
    assert "'oops' lets nobody in" in host.warnings
    assert "203.0.113.8" in rules(host)
    change(host, allowed_ip="203.0.113.8")
    assert "oops" not in host.warnings


@pytest.mark.parametrize("typed", ["oops", "203.0.113.999", "app.example.com; 300.0.0.1"])
def test_no_slip_locks_everybody_out(host: Host, typed: str) -> None:
    before = rules(host), visitors(host)
    change(host, allowed_ip=typed)
    assert (rules(host), visitors(host)) == before
    assert "those that it held before stay in force" in host.warnings
    change(host, allowed_ip="203.0.113.8")
    assert "No entry" not in host.warnings


def test_rules_that_are_refused_leave_the_former_ones_and_are_told(host: Host) -> None:
    before = rules(host)
    host.machine.on_command = lambda line: Done(code=1, err="no room") if "nft --check" in line else None
    assert change(host, allowed_ip="203.0.113.8") == 1
    assert rules(host) == before
    assert "former ones stay: no room" in host.warnings
    host.machine.on_command = lambda _: None
    assert change(host) == 0
    assert "203.0.113.8" in rules(host)
    assert (host.steps["firewall"], "no room" in host.warnings) == ("done", False)


def test_a_server_that_says_nothing_changes_nothing(host: Host) -> None:
    before = rules(host)

    def silent() -> dict[str, str]:
        raise Silent("the metadata server answers 503")

    assert follow(host.machine.system, silent) == 1
    assert rules(host) == before


def test_a_machine_that_was_never_set_up_is_left_to_its_first_start(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert follow(host.machine.system, host.read) == 0
    assert host.machine.calls == []


RESTART = "systemctl --no-block restart comfyweb-visitors.service"


def test_the_keeper_has_it_done_once_for_each_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with keeping(tmp_path, monkeypatch, comfyweb_app_ip="198.51.100.1") as kept:
        known = {"attributes": {"comfyweb-app-ip": "198.51.100.1", "allowed_ip": ""}}
        files.write_object(kept.root / "var/lib/comfyweb" / metadata.LAST_GOOD, known)
        kept.start()
        kept.settled()
        assert kept.programs.called == [], "as the set-up has it already"
        for times, address in enumerate(("198.51.100.2", "198.51.100.3"), start=1):
            surroundings.change(kept.metadata, comfyweb_app_ip=address)
            until(lambda times=times: kept.programs.called == [RESTART] * times)
