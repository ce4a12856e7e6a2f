"""A machine stops itself when nobody uses it, never while a job runs or waits, whatever happens to its keeper.

The limit is seconds here. What takes a minute or more by its nature waits side by side: `Slow`.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from comfyweb.demo.model import Status
from tests.demo.standin_machine import App, Clocks
from tests.machines.conftest import NewHost
from tests.machines.first_boot import FirstBoot
from tests.machines.installed import COMFYUI as PORT
from tests.machines.installed import Host, equip, put_disks
from tests.machines.machine import Machine

LIMIT = 6.0
MINUTES = str(LIMIT / 60)
KEEPER, COMFYUI = "comfyweb-keeper.service", "comfyui.service"
# Beyond it lie the dead-man switch's patience with the keeper and its timer, or two minutes of asking politely.
SLOW_SECONDS = 600.0


def idle_host(new_host: NewHost, **metadata: str) -> Host:
    return new_host(comfyweb_idle_minutes=MINUTES, **metadata).boot()


def goes_off_after(host: Host, seconds: float, used: float) -> None:
    """Wait until the machine is off, which it must not be sooner after a moment at which it was in use.

    `used` is on the monotonic clock, and of before the use: however late this process comes to look, it can't seem
    to have stopped too early.
    """
    host.machine.wait_off()
    assert time.monotonic() - used >= seconds


def work(host: Host, *jobs: float, meanwhile: Callable[[], None] = lambda: time.sleep(0.1)) -> float:
    """Have jobs done, and return the last moment at which one was surely under way."""
    working = time.monotonic()
    for seconds in jobs:
        host.submit(seconds)
    asked = working
    while host.jobs():
        working = asked
        meanwhile()
        asked = time.monotonic()
    return working


def without_a_keeper(host: Host) -> None:
    host.machine.sh(f"systemctl mask --runtime --now {KEEPER}")


def with_a_keeper_that_dies_at_once(host: Host) -> None:
    folder = f"/run/systemd/system/{KEEPER}.d"
    host.machine.sh(
        f"mkdir -p {folder}; printf '[Service]\\nExecStart=\\nExecStart=/bin/false\\n' > {folder}/broken.conf; "
        f"systemctl daemon-reload; systemctl restart --no-block {KEEPER}"
    )


def with_a_new_bundle_that_is_broken(host: Host) -> None:
    host.machine.sh(
        "cd /opt/comfyweb; mkdir broken; echo nonsense > broken/comfyweb.pyz; ln -sfn broken current; "
        f"systemctl kill --signal=KILL {KEEPER}"
    )


def with_a_service_that_never_stops(host: Host) -> None:
    host.machine.sh(
        "systemd-run --quiet --property=TimeoutStopSec=infinity --property=KillMode=mixed "
        "sh -c 'trap : TERM; while :; do sleep 1; done'"
    )


def with_a_keeper_and_a_comfyui_that_hang(host: Host) -> None:
    host.kill(KEEPER, "STOP")
    host.kill(COMFYUI, "STOP")


def with_a_comfyui_that_hangs(host: Host) -> None:
    host.kill(COMFYUI, "STOP")


SPOILT = (
    with_a_keeper_and_a_comfyui_that_hang,
    without_a_keeper,
    with_a_keeper_that_dies_at_once,
    with_a_new_bundle_that_is_broken,
    with_a_service_that_never_stops,
)


@dataclass(kw_only=True)
class Slow:
    """Machines that are on at the same time, each spoilt in its own way."""

    hosts: dict[Callable[[Host], None], Host]
    until: float


@pytest.fixture(scope="module", autouse=True)
def slow(first_boot: FirstBoot) -> Iterator[Slow]:
    """Boot them, spoil them, and let them wait while the quick tests run."""

    def spoilt(machine: Machine, spoil: Callable[[Host], None]) -> Host:
        put_disks(first_boot.disks, equip(machine))
        machine.metadata(comfyweb_idle_minutes="60" if spoil is with_a_comfyui_that_hangs else "0.4")
        host = Host(machine).boot()
        spoil(host)
        return host

    with ExitStack() as machines, ThreadPoolExecutor() as beside:
        ways = (*SPOILT, with_a_comfyui_that_hangs)
        new = [machines.enter_context(Machine()) for _ in ways]
        hosts = dict(zip(ways, beside.map(spoilt, new, ways), strict=True))
        yield Slow(hosts=hosts, until=time.monotonic() + SLOW_SECONDS)


def test_idle_it_powers_itself_off(new_host: NewHost) -> None:
    begin = time.monotonic()
    host = idle_host(new_host)
    goes_off_after(host, LIMIT, begin)
    assert host.machine.status is Status.TERMINATED


def test_it_stays_while_a_job_runs_though_its_keeper_is_killed_again_and_again(new_host: NewHost) -> None:
    host = idle_host(new_host)

    def kill() -> None:
        host.kill(KEEPER)
        time.sleep(LIMIT / 3)

    goes_off_after(host, LIMIT, work(host, 3 * LIMIT, meanwhile=kill))


def test_a_job_that_waits_keeps_it_too_and_polling_does_not(new_host: NewHost) -> None:
    host = idle_host(new_host)
    working = work(host, *[LIMIT / 2] * 3)
    # What an open tab does all the time.
    host.machine.until(lambda: not host.answers(), "the stop", every=0.2)
    goes_off_after(host, LIMIT, working)


def test_extend_and_keep_alive_by_metadata_keep_it_for_as_long_as_they_say(new_host: NewHost) -> None:
    app = App(Clocks(), "http://localhost:3000")
    host = idle_host(new_host, comfyweb_app_origin=app.origin, comfyweb_keys=app.jwks)
    asked = time.monotonic()
    command = app.command("POST", "/_host/extend", {"minutes": 2 * LIMIT / 60})
    host.machine.metadata(comfyweb_command=f'["{command}"]')
    host.machine.until(lambda: host.status()["activity"]["holds"], "the hold")
    goes_off_after(host, 2 * LIMIT, asked)


def test_a_drain_by_metadata_lets_the_job_end_and_then_powers_off(new_host: NewHost) -> None:
    app = App(Clocks(), "http://localhost:3000")
    host = new_host(comfyweb_app_origin=app.origin, comfyweb_keys=app.jwks).boot()
    host.submit(600)
    command = app.command("POST", "/_host/drain", {"deadline_seconds": 3600})
    host.machine.metadata(comfyweb_command=f'["{command}"]')
    host.machine.until(lambda: host.status().get("drain"), "the drain")
    assert host.jobs() == 1
    host.machine.request(PORT, "POST", "/interrupt")
    host.machine.wait_off()


def test_a_command_that_nobody_signed_changes_nothing(new_host: NewHost) -> None:
    app, stranger = App(Clocks(), "http://localhost:3000"), App(Clocks(), "http://localhost:3000")
    host = new_host(comfyweb_app_origin=app.origin, comfyweb_keys=app.jwks).boot()
    wrong = stranger.command("POST", "/_host/drain", {"deadline_seconds": 0})
    right = app.command("POST", "/_host/extend", {"minutes": 60})
    host.machine.metadata(comfyweb_command=f'["{wrong}", "{right}"]')
    host.machine.until(lambda: host.status()["activity"]["holds"], "the hold of the right one")
    assert host.status()["drain"] is None


@pytest.mark.parametrize("spoilt", SPOILT)
def test_it_ends_all_the_same(slow: Slow, spoilt: Callable[[Host], None]) -> None:
    slow.hosts[spoilt].machine.wait_off(max(0.0, slow.until - time.monotonic()))


def test_a_comfyui_that_hangs_is_started_again(slow: Slow) -> None:
    host = slow.hosts[with_a_comfyui_that_hangs]
    host.machine.until(host.answers, "another ComfyUI", within=max(0.0, slow.until - time.monotonic()), every=1)
    assert any("ran but didn't answer, so it was restarted" in words for words in host.warnings())
