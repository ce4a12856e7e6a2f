"""What a process shows and answers while another one runs the machine's loop."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import TypeAdapter

from comfyweb.control.clock import Clock
from comfyweb.control.follower import NO_NEWS, WAITING_AT_MOST, Follower, without_metadata
from comfyweb.control.publisher import Publisher
from comfyweb.control.relay import NEWS_WITHIN, Asked, Told
from comfyweb.machine import orders
from comfyweb.machine.faults import named
from comfyweb.machine.model import (
    Attempt,
    Certificate,
    HostSeen,
    MachineMissing,
    MachineSeen,
    NameSeen,
    Observation,
    Phase,
    Run,
    Scheduling,
    Step,
    Verb,
)
from comfyweb.machine.snapshot import nothing_seen_yet
from tests.control.driving import PLACE, POLICY

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
HOST = HostSeen(at=NOW, boot_id="boot-1", phase="ready", comfyui_ready=True, by_https=False)
RUN = Run(id=1, started_at=NOW, asked_at=NOW, boot_id="boot-1")
ON = Observation(machine=MachineSeen(at=NOW, status="RUNNING", zone="z"), host=HOST, run=RUN)


class Bench:
    """A follower and the clock of its computer."""

    def __init__(self) -> None:
        self.passed = timedelta()
        self.publisher = Publisher(nothing_seen_yet(PLACE))
        clock = Clock(now=lambda: NOW + self.passed, monotonic=self._seconds)
        self.follower = Follower(publisher=self.publisher, policy=POLICY, clock=clock)

    def _seconds(self) -> float:
        return self.passed.total_seconds()

    @property
    def fault(self) -> str:
        fault = self.publisher.snapshot.body["fault"]
        return fault["code"] if fault else ""


@pytest.fixture
def bench() -> Bench:
    return Bench()


def told(seen: Observation = ON, *, epoch: int = 1, phase: Phase = Phase.READY, trouble: str | None = None) -> Told:
    body = nothing_seen_yet(PLACE).body | {"phase": phase.value, "fault": None}
    return Told(epoch=epoch, now=NOW, phase=phase, body=body, seen=seen, trouble=trouble)


async def test_it_shows_what_the_one_with_the_loop_saw(bench: Bench) -> None:
    await bench.follower.take(told())
    assert bench.publisher.snapshot.phase is Phase.READY
    assert bench.follower.seen == ON
    assert bench.follower.trouble is None
    assert bench.follower.latest_end == NOW + POLICY.session_cap


async def test_it_goes_by_the_time_of_the_one_with_the_loop(bench: Bench) -> None:
    await bench.follower.take(replace(told(), now=NOW + timedelta(hours=3)))
    bench.passed += timedelta(seconds=2)
    assert bench.follower.now() == NOW + timedelta(hours=3, seconds=2)


async def test_one_that_has_lost_the_lease_is_not_believed(bench: Bench) -> None:
    await bench.follower.take(told(epoch=2))
    await bench.follower.take(told(epoch=1, phase=Phase.OFF))
    assert bench.publisher.snapshot.phase is Phase.READY


async def test_it_says_when_it_has_no_news_and_no_more_when_it_has(bench: Bench) -> None:
    await bench.follower.take(told())
    bench.passed += NEWS_WITHIN
    await bench.follower.notice_silence()
    assert bench.fault == ""
    bench.passed += timedelta(seconds=1)
    await bench.follower.notice_silence()
    assert (bench.fault, bench.follower.trouble) == ("no-news", NO_NEWS)
    assert bench.publisher.snapshot.phase is Phase.READY, "the last truth stays"
    await bench.follower.take(told())
    assert (bench.fault, bench.follower.trouble) == ("", None)


async def test_cut_off_from_the_database_it_says_so_whatever_it_is_told(bench: Bench) -> None:
    bench.follower.cut_off = True
    await bench.follower.take(told())
    assert bench.fault == "ledger"


async def test_it_asks_for_a_look_and_hands_on_what_the_host_is_to_hear_by_way_of_google(bench: Bench) -> None:
    await bench.follower.take(told())
    bench.follower.wake()
    assert bench.follower.order(orders.keep_alive())
    assert [bench.follower.asked.get_nowait() for _ in range(2)] == [Asked(), Asked(order=orders.keep_alive())]


async def test_it_takes_no_order_for_a_host_that_answers_by_https_or_when_nobody_would_hear(bench: Bench) -> None:
    assert not bench.follower.order(orders.keep_alive())
    await bench.follower.take(told(replace(ON, host=replace(HOST, by_https=True))))
    assert not bench.follower.order(orders.keep_alive())
    await bench.follower.take(told())
    bench.passed += NEWS_WITHIN + timedelta(seconds=1)
    await bench.follower.notice_silence()
    assert not bench.follower.order(orders.keep_alive())


async def test_what_nobody_fetches_does_not_pile_up(bench: Bench) -> None:
    await bench.follower.take(told())
    for _ in range(WAITING_AT_MOST + 10):
        bench.follower.wake()
    assert bench.follower.asked.qsize() == WAITING_AT_MOST
    assert not bench.follower.order(orders.keep_alive())


EVERYTHING = Observation(
    machine=MachineSeen(
        at=NOW,
        status="RUNNING",
        zone="z",
        accelerators=(("nvidia-tesla-t4", 1),),
        metadata={"allowed_ip": "203.0.113.7", "startup-script": "x" * 1000},
        scheduling=Scheduling(max_run_seconds=3600),
        told_at=NOW,
        disks=("persistent-disk-0",),
    ),
    machine_fault=named("rate-limit"),
    call_again=NOW,
    host=replace(
        HOST,
        steps=(Step(name="disk", state="done", seconds=1.5),),
        warnings=("w",),
        certificate=Certificate(mode="letsencrypt", trusted=True, until=NOW),
        acks=("a",),
    ),
    attempts=(Attempt(id=1, verb=Verb.START, zone="z", request_id="r", made_at=NOW, fault=named("quota")),),
    run=RUN,
    phase=Phase.READY,
    since=NOW,
    silence=timedelta(seconds=3),
    name=NameSeen(name="n", addresses=("203.0.113.9",)),
)


@pytest.mark.parametrize("seen", [EVERYTHING, Observation(machine=MachineMissing(at=NOW)), Observation()])
def test_all_that_can_be_seen_arrives_as_it_was(seen: Observation) -> None:
    news = TypeAdapter(Told)
    assert news.validate_json(news.dump_json(told(seen))) == told(seen)


def test_of_the_machines_metadata_only_what_is_needed_is_told() -> None:
    machine = without_metadata(EVERYTHING, frozenset({"allowed_ip"})).machine
    assert isinstance(machine, MachineSeen)
    assert machine.metadata == {"allowed_ip": "203.0.113.7"}
    assert without_metadata(Observation(), frozenset()) == Observation()
