"""Several processes serve one machine: there is one loop, and killed, stood still or cut off, another goes on with it.

Whole processes with a real PostgreSQL and Redis beside the emulated cloud.
"""

import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.launching import ROOT
from tests.replicas.partition import Cable
from tests.replicas.servers import PostgreSQLServer, RedisServer
from tests.replicas.town import App, Town, town, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / ".web/build/client/index.html").exists(), reason="the page is not built"),
]


@pytest.fixture
def here(tmp_path: Path, postgresql: PostgreSQLServer, redis: RedisServer) -> Generator[Town]:
    with town(tmp_path, postgresql.url(), redis.url) as made:
        yield made


def led(*apps: App) -> tuple[App, App]:
    """Wait until one of two leads; return it and the other."""
    until(lambda: [app.leads for app in apps].count(True) == 1)
    return (apps[0], apps[1]) if apps[0].leads else (apps[1], apps[0])


@pytest.fixture
def two(here: Town) -> tuple[App, App]:
    """Return the one that leads and the one that follows."""
    return led(here.app(0), here.app(1))


def test_what_is_asked_of_any_is_done_once_and_shown_by_all(here: Town, two: tuple[App, App]) -> None:
    leader, follower = two
    follower.shows("off")
    assert not follower.calls, "one of them looks at Compute Engine"
    assert leader.calls
    for app in [follower, leader] * 5:
        assert app.post("start").status_code == 200
    ready = follower.shows("ready")
    assert leader.shows("ready")["run"] == ready["run"]
    assert here.done() == ["start"]
    assert follower.post("keep-alive").status_code == 200
    assert follower.post("stop", mode="now").status_code == 200
    assert leader.shows("off")["last_stop"] == follower.shows("off")["last_stop"]
    assert here.done() == ["start", "stop"]


def test_a_login_counts_everywhere_at_once_and_so_does_a_logout(two: tuple[App, App]) -> None:
    one, other = two
    for _ in range(5):
        login = one.log_in()
        assert other.lets_in(login)
        one, other = other, one
    login = one.log_in()
    assert one.client.post("/api/auth/logout", headers=login).status_code == 200
    until(lambda: not other.lets_in(login))


def test_when_the_one_that_leads_is_killed_another_goes_on_with_its_start(here: Town, two: tuple[App, App]) -> None:
    leader, follower = two
    assert leader.post("start").status_code == 200
    leader.kill()
    until(lambda: follower.leads)
    follower.shows("ready")
    assert here.done() == ["start"]
    leader.start()
    leader.shows("ready")
    assert not leader.leads


def test_the_one_that_ends_in_order_hands_over(here: Town, two: tuple[App, App]) -> None:
    leader, follower = two
    leader.end()
    until(lambda: follower.leads)
    assert follower.post("start").status_code == 200
    follower.shows("ready")


def test_one_that_stood_still_does_nothing_late(here: Town, two: tuple[App, App]) -> None:
    leader, follower = two
    assert leader.post("start").status_code == 200
    leader.stand_still()
    until(lambda: follower.leads)
    follower.shows("ready")
    assert follower.post("stop", mode="now").status_code == 200
    follower.shows("off")
    leader.go_on()
    until(lambda: not leader.leads)
    leader.shows("off")
    assert follower.leads
    assert here.done() == ["start", "stop"]


def test_without_redis_a_follower_says_so_and_takes_what_is_asked(
    tmp_path: Path, postgresql: PostgreSQLServer, redis: RedisServer
) -> None:
    with RedisServer() as own, town(tmp_path, postgresql.url(), own.url) as here:
        leader, follower = led(here.app(0), here.app(1))
        follower.shows("off")
        own.kill()
        follower.shows_fault("no-news")
        assert follower.post("start").status_code == 200
        leader.shows("ready")
        own.start()
        follower.shows("ready")
        own.stand_still()
        follower.shows_fault("no-news")
        leader.shows("ready")
        own.go_on()
        follower.shows("ready")
        assert here.done() == ["start"]


def test_without_the_database_nobody_acts_and_all_say_so(
    tmp_path: Path, postgresql: PostgreSQLServer, redis: RedisServer
) -> None:
    with PostgreSQLServer() as own, town(tmp_path, own.url(), redis.url) as here:
        leader, follower = led(here.app(0), here.app(1))
        for fails, recovers in ((own.kill, own.start), (own.stand_still, own.go_on)):
            follower.shows("off")
            leader.shows("off")
            fails()
            for app in (leader, follower):
                app.shows_fault("ledger")
                assert app.post("start").status_code == 503
            recovers()
        follower.shows("off")
        assert here.done() == []
        assert follower.post("start").status_code == 200
        leader.shows("ready")
        assert here.done() == ["start"]


def test_one_that_starts_before_the_database_says_so_and_serves_as_soon_as_it_is_there(
    tmp_path: Path, postgresql: PostgreSQLServer, redis: RedisServer
) -> None:
    with PostgreSQLServer() as own, town(tmp_path, own.url(), redis.url) as here:
        app = here.app(0)
        app.kill()
        own.kill()
        app.launch()
        waits = "Nothing is served yet"
        assert "nothing listens at the server's address" in app.program.says(waits)
        app.program.signal(signal.SIGTERM)
        assert app.program.ended() == 0
        app.launch()
        app.program.says(waits)
        own.start()
        app.serves()
        app.shows("off")


def test_one_that_is_cut_off_from_the_database_is_followed_by_another(
    tmp_path: Path, postgresql: PostgreSQLServer, redis: RedisServer
) -> None:
    with Cable(postgresql.port) as cable, town(tmp_path, url := postgresql.url(), redis.url) as here:
        cut_off = here.app(0, DATABASE_URL=url.replace(f":{postgresql.port}/", f":{cable.port}/"))
        until(lambda: cut_off.leads)
        other = here.app(1)
        assert cut_off.post("start").status_code == 200
        cable.cut()
        until(lambda: other.leads)
        other.shows("ready")
        cut_off.shows_fault("ledger")
        until(lambda: not cut_off.leads)
        cable.mend()
        cut_off.shows("ready")
        assert [other.leads, cut_off.leads] == [True, False]
        assert here.done() == ["start"]


def test_postgresql_without_redis_has_one_that_works_and_one_that_waits(
    tmp_path: Path, postgresql: PostgreSQLServer
) -> None:
    with town(tmp_path, postgresql.url(), None) as here:
        leader, follower = led(here.app(0), here.app(1))
        follower.shows_fault("no-news")
        assert leader.post("start").status_code == 200
        leader.shows("ready")
        leader.kill()
        until(lambda: follower.leads)
        follower.shows("ready")
        assert here.done() == ["start"]
