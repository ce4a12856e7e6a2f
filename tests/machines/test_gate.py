"""A machine as the network sees it: nginx first of all, and behind the gate nobody without a ticket."""

from tests.machines.installed import Host
from tests.machines.network import GATEWAY
from tests.machines.visiting import Visitor

GATE, KEEPER, NGINX = "comfyweb-gate.service", "comfyweb-keeper.service", "comfyweb-nginx.service"
HTML = {"Accept": "text/html"}


def started(host: Host, unit: str) -> int:
    """Return the microsecond of the boot in which a unit was started."""
    return int(host.machine.sh(f"systemctl show --property=ExecMainStartTimestampMonotonic --value {unit}"))


def test_nginx_is_the_first_service_of_all_and_says_that_the_machine_starts(host: Host) -> None:
    visitor = Visitor(host.machine)
    visitor.introduce()
    host.machine.start()
    host.machine.until(lambda: visitor.status() == 503, "the warming page", every=0.005)
    page = visitor.ask("/", **HTML)
    assert (page.status, page.headers["retry-after"]) == (503, "2")
    assert "looks again" in page.text
    host.wait_ready()
    host.machine.wait_booted()
    others = ("comfyui.service", "comfyweb-keeper.service", GATE, "google-startup-scripts.service")
    assert all(started(host, NGINX) <= started(host, other) for other in others)


def test_a_stranger_gets_nothing_and_a_ticket_opens_comfyui(visitor: Visitor) -> None:
    ticket = visitor.app.ticket()
    for path in ("/", "/prompt", "/system_stats", "/ws", "/_host/status", "/_host/logs"):
        assert visitor.status(path) == 401
    assert visitor.websocket("") is None
    assert visitor.ask("/_host/health").text == '{"phase": "ready"}'
    cookie = visitor.enter(ticket)
    page = visitor.ask("/", Cookie=cookie)
    assert (page.status, "<title>ComfyUI</title>" in page.text) == (200, True)
    assert page.headers["content-security-policy"] == f"frame-ancestors {visitor.app.origin}"
    assert visitor.enter(ticket) == ""
    assert ticket not in visitor.machine.sh("journalctl --no-pager --boot=0")
    assert visitor.machine.sh(f"grep --recursive --files-with-matches '{ticket[-40:]}' /run /var/log || true") == ""


def test_a_revoke_ends_the_open_websocket_and_the_cookie(visitor: Visitor) -> None:
    cookie, other = visitor.enter(visitor.app.ticket(sub="one")), visitor.enter(visitor.app.ticket(sub="another"))
    websocket = visitor.websocket(cookie)
    assert websocket is not None
    assert visitor.call("POST", "/_host/revoke", {"session": "one"}).status == 200
    assert websocket.recv(1) == b""
    websocket.close()
    assert visitor.status(Cookie=cookie) == 401
    assert visitor.status(Cookie=other) == 200


def test_a_gate_or_a_keeper_that_is_killed_comes_back_and_lets_nobody_in_meanwhile(
    visitor: Visitor, standing: Host
) -> None:
    host, cookie = standing, visitor.enter()
    host.machine.sh(f"systemctl mask --runtime --now {GATE}")
    for headers in ({}, {"Cookie": cookie}):
        answer = visitor.ask("/", **HTML, **headers)
        assert (answer.status, "nobody is let in" in answer.text) == (503, True)
    host.machine.sh(f"systemctl unmask --runtime {GATE}; systemctl start {GATE}")
    assert visitor.status(Cookie=cookie) == 200
    before = host.process(GATE)
    host.kill(GATE)
    host.machine.until(lambda: host.process(GATE) not in (0, before), "another gate")
    host.machine.until(lambda: visitor.status(Cookie=cookie) == 200, "the gate")
    host.machine.sh(f"systemctl mask --runtime --now {KEEPER}")
    assert "keeper doesn't answer" in visitor.ask("/_host/health").text
    assert visitor.status(Cookie=cookie) == 200
    host.machine.until(lambda: visitor.enter() == "", "a gate that has noticed", every=1)
    host.machine.sh(f"systemctl unmask --runtime {KEEPER}; systemctl start {KEEPER}")
    host.machine.until(visitor.enter, "a gate that hears of its keeper again")


def test_code_in_comfyui_gets_at_neither_the_gate_nor_what_it_keeps(visitor: Visitor, standing: Host) -> None:
    host, cookie = standing, visitor.enter()
    comfyui = f"nsenter -t {host.process('comfyui.service')} -m setpriv --reuid comfyui --regid comfyui --clear-groups"
    for command in (
        "cat /run/comfyweb-gate/memory.json",
        "cat /run/comfyweb/gate.json",
        "curl --silent --fail --unix-socket /run/comfyweb-gate/calls.sock http://gate/verify",
        "curl --silent --fail --unix-socket /run/comfyweb-gate/tunnels.sock http://gate/",
        "touch /etc/comfyweb/nginx/pages/x",
    ):
        assert host.machine.sh(f"{comfyui} {command} >/dev/null 2>&1 && echo done || echo no") == "no", command
    assert cookie.partition("=")[2] not in host.machine.sh("cat /run/comfyweb-gate/memory.json")
    assert host.machine.sh(f"ps -o user= -p {host.process(GATE)}").strip() == "comfyweb-gate"


def test_a_configuration_that_nginx_refuses_never_replaces_a_good_one(visitor: Visitor, standing: Host) -> None:
    host, cookie = standing, visitor.enter()
    refuse = "#!/bin/sh\necho no >&2\nexit 1\n"
    host.machine.sh(f"printf '%s' '{refuse}' > /usr/local/sbin/nginx; chmod +x /usr/local/sbin/nginx")
    host.machine.set_metadata({"allowed_ip": f"{GATEWAY}, 203.0.113.7"})
    assert "nginx refuses its new configuration" in host.reconcile()
    host.machine.sh(f"systemctl restart {NGINX}")
    host.machine.until(lambda: visitor.status(Cookie=cookie) == 200, "nginx")
    host.machine.until(lambda: any("nginx refuses" in words for words in host.warnings()), "the warning")
    assert "203.0.113.7" not in host.machine.sh("cat /etc/comfyweb/nginx/nginx.conf")
    host.machine.sh("rm /usr/local/sbin/nginx")
    host.reconcile()
    assert "203.0.113.7" in host.machine.sh("cat /etc/comfyweb/nginx/nginx.conf")
    host.machine.until(lambda: visitor.status(Cookie=cookie) == 200, "the new configuration")
    host.machine.set_metadata({"allowed_ip": ""})
    host.reconcile()


def test_the_archives_own_nginx_which_the_first_boot_found_is_off_for_good(standing: Host) -> None:
    machine = standing.machine
    assert machine.sh("systemctl is-active nginx.service || true") == "inactive"
    assert machine.sh("systemctl is-enabled nginx.service || true") == "disabled"


def test_systemd_finds_the_gate_well_shut_in(standing: Host) -> None:
    def exposure(unit: str) -> float:
        said = standing.machine.sh(f"systemd-analyze security --no-pager {unit} | tail -n 1")
        return float(next(word for word in said.split() if word.replace(".", "").isdigit()))

    assert exposure(GATE) < 2.5
    assert exposure(NGINX) < 5.5
