"""The firewall on a booted machine: there before the network is asked anything, from what is on the disk."""

import socket
from pathlib import Path

from tests.machines.installed import Host
from tests.machines.network import GATEWAY, GUEST, in_namespace
from tests.machines.weather import Sky

SSH, OPEN, SECRET = 22, 80, 9000
_LISTENER = "import socket, time; s = socket.create_server(('', {port})); time.sleep(9999)"
LISTEN = f'systemd-run --quiet --unit=listen-{{port}} python3 -c "{_LISTENER}"'


def call(host: Host, port: int) -> str:
    """Knock at a port of the machine from beyond its cable."""

    def knock() -> str:
        try:
            socket.create_connection((GUEST, port), timeout=1).close()
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silence"
        return "open"

    return in_namespace(Path("/run/netns", host.machine.network.outside), knock)


def test_only_what_is_meant_is_open_and_the_rules_of_others_stay(host: Host) -> None:
    host.boot()
    machine = host.machine
    machine.wait_booted()
    machine.sh("nft add table inet theirs; " + LISTEN.format(port=SECRET))
    machine.sh(LISTEN.format(port=SSH))
    machine.until(lambda: call(host, SSH) == "open", "ssh")
    assert call(host, SECRET) == "silence"
    machine.set_metadata({"allowed_ip": "203.0.113.7", "domain_name": "comfy.example.com"})
    host.reconcile()
    assert call(host, SSH) == "refused"
    machine.set_metadata({"allowed_ip": f"203.0.113.7,{GATEWAY},oops"})
    host.reconcile()
    assert call(host, SSH) == "open"
    machine.until(lambda: any("'oops' lets nobody in" in words for words in host.warnings()), "words about oops")
    assert "table inet theirs" in machine.sh("nft list tables")
    assert "table inet comfyweb\n" in machine.sh("nft list tables") + "\n"


def test_a_change_of_who_may_come_needs_no_start(host: Host) -> None:
    host.boot()
    machine = host.machine
    machine.wait_booted()
    machine.sh(LISTEN.format(port=SSH))
    machine.until(lambda: (call(host, SSH), call(host, OPEN)) == ("open", "open"), "everybody")
    machine.set_metadata({"allowed_ip": "203.0.113.7"})
    machine.until(lambda: (call(host, SSH), call(host, OPEN)) == ("refused", "refused"), "nobody from here")
    machine.set_metadata({"allowed_ip": f"oops {GATEWAY}"})
    machine.until(lambda: (call(host, SSH), call(host, OPEN)) == ("open", "open"), "us again")
    machine.until(lambda: any("'oops' lets nobody in" in words for words in host.warnings()), "words about oops")


def test_it_is_in_force_at_boot_without_the_metadata_server(host: Host) -> None:
    machine = host.machine
    machine.set_metadata({"allowed_ip": "203.0.113.7", "domain_name": "comfy.example.com"})
    host.boot()
    machine.wait_booted()
    machine.sh("systemctl poweroff")
    machine.wait_off()
    machine.weather.sky = Sky.SILENT
    machine.start()
    machine.until(lambda: machine.sh("nft list tables", check=False) if machine.guest.leader() else "", "rules")
    assert "203.0.113.7" in machine.sh("nft list table inet comfyweb_firewall")
    before = "systemctl show --property=Before --value comfyweb-firewall.service"
    machine.until(lambda: "network-pre.target" in machine.sh(before, check=False), "systemd's word for it")


def test_neither_the_firewall_nor_the_block_is_gone_when_nftables_begins_anew(standing: Host) -> None:
    machine, comfyui = standing.machine, standing.process("comfyui.service")
    # As Debian has it; a machine's image may have it switched off.
    for verb in ("start", "restart", "reload", "stop"):
        machine.sh(f"systemctl {verb} nftables.service")
        assert "169.254.169.254" in machine.sh("nft list table inet comfyweb"), verb
        assert "tcp dport 22" in machine.sh("nft list table inet comfyweb_firewall"), verb
    assert "flush ruleset" in machine.sh("systemctl cat nftables.service; cat /etc/nftables.conf")
    assert standing.process("comfyui.service") == comfyui
