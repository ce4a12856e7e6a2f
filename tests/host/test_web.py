"""nginx on a machine: a bad configuration never replaces a good one, and the old nginx comes back."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.host.machine import Host
from vm_setup.base import files, tls
from vm_setup.base.paths import Paths
from vm_setup.base.places import NGINX_UNIT
from vm_setup.base.tls import Tls
from vm_setup.setup import adoption, units, web
from vm_setup.setup.system import Done

REFUSED = Done(code=1, err='nginx: [emerg] unknown directive "x"')


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def config(host: Host) -> Path:
    return host.machine.paths.etc / "comfyweb/nginx/nginx.conf"


def in_force(shown: Tls) -> Callable[[Paths], Tls]:
    return lambda _: shown


def calls(host: Host, word: str) -> list[str]:
    return [call for call in host.machine.calls if word in call]


def test_nginx_is_there_before_the_disk_is_looked_at(host: Host) -> None:
    assert host.reconcile() == 0
    said = host.machine.calls
    tried = next(index for index, call in enumerate(said) if call.startswith("nginx -t"))
    started = said.index("systemctl reload-or-restart comfyweb-nginx.service")
    assert tried < started < said.index("systemctl start mnt-persist.mount")
    assert any(call.startswith("useradd") and call.endswith("comfyweb-gate") for call in said)
    assert config(host).exists()
    assert not config(host).with_name("tried.conf").exists()
    for name in ("warming.html", "warming.json", "stranger.html", "draining.json", "staying.json", "silent.html"):
        assert (config(host).parent / "pages" / name).stat().st_mode & 0o777 == 0o644
    assert (host.machine.paths.units / f"basic.target.wants/{NGINX_UNIT}").is_symlink()
    assert (host.machine.paths.units / f"multi-user.target.wants/{units.GATE}").is_symlink()


def test_a_bad_configuration_never_replaces_a_good_one_and_is_told(host: Host) -> None:
    host.reconcile()
    good = config(host).read_text()
    host.attributes["allowed_ip"] = "203.0.113.7"
    host.machine.on_command = lambda line: REFUSED if line.startswith("nginx -t") else None
    host.machine.calls.clear()
    assert host.reconcile() == 1
    assert config(host).read_text() == good
    assert not calls(host, "reload-or-restart comfyweb-nginx")
    assert "what it had stays in force" in host.warnings
    assert host.steps["gate"] == "failed"
    host.machine.on_command = lambda _: None
    assert host.reconcile() == 0
    assert "203.0.113.7/32 1;" in config(host).read_text()
    assert calls(host, "reload-or-restart comfyweb-nginx")


def test_who_may_come_in_is_part_of_the_one_file_that_a_boot_needs(host: Host) -> None:
    host.reconcile()
    assert files.read(host.machine.paths.etc / "comfyweb/nginx/visitors.conf") in config(host).read_text()
    assert "visitors.conf" not in config(host).read_text()


def test_what_somebody_has_changed_by_hand_is_put_right(host: Host) -> None:
    host.reconcile()
    good = config(host).read_text()
    for spoil in (config(host).unlink, lambda: config(host).write_text("events {}\n")):
        spoil()
        host.reconcile()
        assert config(host).read_text() == good


def test_a_reload_that_a_kill_has_prevented_is_made_up_for(host: Host) -> None:
    def killed(line: str) -> None:
        if "reload-or-restart comfyweb-nginx" in line:
            raise KeyboardInterrupt

    host.machine.on_command = killed
    with pytest.raises(KeyboardInterrupt):
        host.reconcile()
    host.machine.on_command = lambda _: None
    host.machine.calls.clear()
    assert host.reconcile() == 0
    assert calls(host, "reload-or-restart comfyweb-nginx")


def test_another_certificate_in_the_same_place_is_loaded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = host.machine.paths.state / "tls/current"
    shown = Tls(mode="self-signed", chain=folder / "chain.pem", key=folder / "key.pem")
    files.write(shown.chain, "one")
    monkeypatch.setattr(tls, "current", in_force(shown))
    host.reconcile()
    assert f"ssl_certificate {shown.chain};" in config(host).read_text()
    assert "add_header Strict-Transport" not in config(host).read_text()
    host.machine.calls.clear()
    web.apply(host.machine.system)
    assert host.machine.calls == []
    files.write(shown.chain, "two")
    web.apply(host.machine.system)
    assert calls(host, "reload-or-restart comfyweb-nginx")
    monkeypatch.setattr(tls, "current", in_force(replace(shown, trusted=True)))
    web.apply(host.machine.system)
    assert config(host).read_text().count("add_header Strict-Transport-Security") == 2


def test_it_listens_on_ipv6_only_where_there_is_any(host: Host) -> None:
    host.reconcile()
    assert "[::]" not in config(host).read_text()
    host.machine.put("proc/net/if_inet6", "")
    host.reconcile()
    assert "listen [::]:80 default_server;" in config(host).read_text()


def test_every_name_in_the_configuration_is_filled_in() -> None:
    for shown in (Tls(), Tls(mode="letsencrypt", trusted=True)):
        text = web.render(web.Site(tls=shown))
        assert "@" not in text


def test_the_archive_s_own_nginx_makes_room(host: Host) -> None:
    link = host.machine.paths.units / "multi-user.target.wants/nginx.service"
    files.link(link, "/lib/systemd/system/nginx.service")
    host.machine.put("etc/nginx/sites-enabled/default")
    host.reconcile()
    assert not link.is_symlink()
    assert "systemctl stop nginx.service" in host.machine.calls
    assert host.machine.calls.index("systemctl stop nginx.service") < host.machine.calls.index(
        "systemctl reload-or-restart comfyweb-nginx.service"
    )
    assert host.warnings == "[]"


def test_somebody_s_nginx_is_put_aside_told_and_comes_back(host: Host) -> None:
    link = host.machine.paths.units / "multi-user.target.wants/nginx.service"
    files.link(link, "/lib/systemd/system/nginx.service")
    host.machine.put("etc/nginx/sites-enabled/theirs", "server { listen 80; }\n")
    host.reconcile()
    assert not link.is_symlink()
    assert "adopt-undo" in host.warnings
    host.machine.calls.clear()
    system, data = host.machine.system, host.machine.data
    adoption.undo(system, data, stop=units.running(), remove=units.names())
    assert link.is_symlink()
    [stop] = [call for call in host.machine.calls if call.startswith("systemctl stop")]
    assert NGINX_UNIT in stop
    assert host.machine.calls[-1] == "systemctl reload-or-restart nginx.service"
    assert not (host.machine.paths.units / f"basic.target.wants/{NGINX_UNIT}").is_symlink()
