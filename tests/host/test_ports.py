"""What holds nginx's ports is told by its name."""

import os
import shutil
import socket
from pathlib import Path

import pytest

from tests.host.keeping import keeping
from tests.host.surroundings import until
from vm_setup.keeper import ports
from vm_setup.keeper.ports import Holder, others

APACHE = 'LISTEN 0 511 *:80 *:* users:(("apache2",pid=812,fd=4),("apache2",pid=811,fd=4))\n'
OURS = "".join(f'LISTEN 0 511 {at} *:* users:(("nginx",pid=900,fd=6))\n' for at in ("[::]:80", "0.0.0.0:443"))


def of_unit(root: Path, pid: int, group: str) -> None:
    file = root / f"proc/{pid}/cgroup"
    file.parent.mkdir(parents=True)
    file.write_text(group)


@pytest.mark.skipif(shutil.which("ss") is None, reason="ss (iproute2) is not installed")
def test_a_program_that_listens_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        (found,) = others([port], Path("/"))
        assert (found.port, found.pid) == (port, os.getpid())
        assert found.name
    assert others([port], Path("/")) == ()


def test_the_page_is_told_for_as_long_as_it_is_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with keeping(tmp_path, monkeypatch) as kept:
        kept.programs.listens(APACHE)
        kept.world.paths.units.mkdir(parents=True)
        (kept.world.paths.units / ports.NGINX_UNIT).touch()
        kept.start()
        until(lambda: any("Port 80 is held by apache2" in one for one in kept.status().get("warnings", [])))
        kept.programs.listens("")
        until(lambda: not any("Port 80" in one for one in kept.status()["warnings"]))


def test_nothing_is_in_the_way_of_an_nginx_that_is_not_installed_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeping(tmp_path, monkeypatch) as kept:
        kept.programs.listens(APACHE)
        kept.start()
        kept.surveyed()
        assert not any("Port 80" in one for one in kept.status()["warnings"])


def test_a_service_is_named_with_how_to_end_it_and_our_own_nginx_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_unit(tmp_path, 812, "1:name=systemd:/\n0::/system.slice/apache2.service\n")
    of_unit(tmp_path, 900, "0::/system.slice/comfyweb-nginx.service\n")
    with keeping(tmp_path, monkeypatch) as kept:
        kept.programs.listens(APACHE + OURS)
        (found,) = others([80, 443], tmp_path)
    assert "Port 80 is held by apache2 (apache2.service), so nginx can't start" in ports.words(found)
    assert "systemctl disable --now apache2.service" in ports.words(found)[:160]


@pytest.mark.parametrize(
    ("holder", "said"),
    [
        (Holder(port=80, name="python3", pid=7), "held by python3 (process 7), so"),
        (Holder(port=443), "held by another program, so"),
    ],
)
def test_without_a_service_it_is_named_as_well_as_can_be(holder: Holder, said: str) -> None:
    assert said in ports.words(holder)


@pytest.mark.parametrize("line", ["", "nonsense", "LISTEN 0 1 *:http *:*", "a b c d\n" * 9])
def test_what_ss_says_otherwise_is_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    with keeping(tmp_path, monkeypatch) as kept:
        kept.programs.listens(line)
        assert others([80], tmp_path) == ()
