"""The judgement of the loop, case by case and then for every mixture that hypothesis can think of."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyweb.machine.decide import (
    AT_WORK,
    BOOTING,
    FRESH,
    GUARD_BACK_OFF,
    HOST_FRESH,
    MOVING,
    START_STUCK,
    STILL,
    STOP_STUCK,
    STOPS,
    decide,
)
from comfyweb.machine.faults import in_vain, named
from comfyweb.machine.model import (
    AskDrain,
    Attempt,
    Call,
    CancelDrain,
    Enforce,
    Guard,
    HostSeen,
    Intent,
    MachineMissing,
    MachineSeen,
    Observation,
    Phase,
    Policy,
    Replay,
    Run,
    Scheduling,
    StopMode,
    Verb,
    Verdict,
    Wanted,
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
CAP = timedelta(hours=10, minutes=15)
POLICY = Policy(
    metadata={"comfyweb-keys": "K", "comfyweb-app-origin": "O", "auth_pass": ""},
    running_metadata=frozenset({"comfyweb-keys", "comfyweb-app-origin"}),
    max_run=CAP,
    session_cap=timedelta(hours=10),
    drain=timedelta(minutes=30),
)
PREPARED = {"comfyweb-keys": "K", "comfyweb-app-origin": "O", "of-others": "stays"}
LIMITED = Scheduling(max_run_seconds=int(CAP.total_seconds()), termination_action="STOP")


def ago(**parts: float) -> datetime:
    return NOW - timedelta(**parts)


def machine(status: str, **changes: Any) -> MachineSeen:
    given: dict[str, Any] = {"at": NOW, "status": status, "zone": "z", "metadata": PREPARED, "scheduling": LIMITED}
    return MachineSeen(**(given | changes))


def host(**changes: Any) -> HostSeen:
    given: dict[str, Any] = {"at": NOW, "boot_id": "b", "phase": "ready", "comfyui_ready": True}
    return HostSeen(**(given | changes))


def on(**changes: Any) -> Intent:
    given: dict[str, Any] = {"id": 7, "wanted": Wanted.ON, "asked_at": ago(seconds=20)}
    return Intent(**(given | changes))


def off(mode: StopMode = StopMode.DRAIN, **changes: Any) -> Intent:
    given: dict[str, Any] = {"id": 8, "wanted": Wanted.OFF, "mode": mode, "asked_at": ago(seconds=20)}
    return Intent(**(given | changes))


def attempt(verb: Verb, **changes: Any) -> Attempt:
    given: dict[str, Any] = {
        "id": 1,
        "verb": verb,
        "zone": "z",
        "request_id": "r",
        "made_at": ago(seconds=10),
        "intent_id": 7,
        "operation": "op",
    }
    return Attempt(**(given | changes))


READY_RUN = Run(id=1, started_at=ago(hours=1), asked_at=ago(hours=1), ready_at=ago(minutes=50))
OLD_RUN = Run(id=2, started_at=ago(hours=9, minutes=52), asked_at=ago(hours=10), ready_at=ago(hours=9), boot_id="b")
FOREIGN_RUN = Run(id=3, started_at=ago(hours=20))


def test_nothing_is_done_before_the_first_look() -> None:
    decision = decide(on(), Observation(), POLICY, NOW)
    assert decision.act is None
    assert decision.fault == named("not-looked-yet")


def test_a_prepared_machine_is_started_at_once() -> None:
    decision = decide(on(), Observation(machine=machine("TERMINATED")), POLICY, NOW)
    assert decision.act == Call(verb=Verb.START)
    assert decision.phase is Phase.STARTING
    assert decision.machine_every == MOVING


def test_metadata_and_scheduling_come_before_a_start_and_only_when_they_differ() -> None:
    bare = machine("TERMINATED", metadata={"auth_pass": "old"}, scheduling=Scheduling())
    assert decide(on(), Observation(machine=bare), POLICY, NOW).act == Call(verb=Verb.SET_METADATA)
    unlimited = machine("TERMINATED", scheduling=Scheduling())
    assert decide(on(), Observation(machine=unlimited), POLICY, NOW).act == Call(verb=Verb.SET_SCHEDULING)


def test_a_call_whose_answer_was_lost_is_repeated_with_its_own_request_id() -> None:
    lost = attempt(Verb.START, operation="")
    seen = Observation(machine=machine("TERMINATED"), attempts=(lost,))
    assert decide(on(), seen, POLICY, NOW).act == Replay(attempt=lost)
    assert decide(None, seen, POLICY, NOW).act == Replay(attempt=lost)


def test_one_start_is_enough() -> None:
    for status in ("TERMINATED", "PROVISIONING", "STAGING"):
        seen = Observation(machine=machine(status), attempts=(attempt(Verb.START),))
        decision = decide(on(), seen, POLICY, NOW)
        assert decision.act is None
        assert decision.phase is Phase.STARTING


def test_a_refused_start_ends_the_intent_with_the_reason() -> None:
    full = attempt(Verb.START, ended_at=ago(seconds=5), fault=named("no-capacity"))
    decision = decide(on(), Observation(machine=machine("TERMINATED"), attempts=(full,)), POLICY, NOW)
    assert decision.verdict == Verdict(fault=named("no-capacity"))


def test_a_fault_that_passes_quickly_is_tried_again_with_a_pause_and_an_end_to_patience() -> None:
    gone = attempt(Verb.START, ended_at=ago(seconds=1), fault=named("unavailable"))
    seen = Observation(machine=machine("TERMINATED"), attempts=(gone,))
    assert decide(on(), seen, POLICY, NOW).act is None
    later = Observation(machine=machine("TERMINATED", at=NOW + timedelta(seconds=5)), attempts=(gone,))
    assert decide(on(), later, POLICY, NOW + timedelta(seconds=5)).act == Call(verb=Verb.START)
    impatient = on(asked_at=ago(minutes=11))
    assert decide(impatient, seen, POLICY, NOW).verdict == Verdict(
        fault=in_vain(named("unavailable"), POLICY.start_patience)
    )


def test_while_a_call_is_repeated_people_see_why_and_when() -> None:
    gone = attempt(Verb.START, ended_at=ago(seconds=1), fault=named("rate-limit"))
    seen = Observation(machine=machine("TERMINATED"), attempts=(gone,))
    decision = decide(on(), seen, POLICY, NOW)
    assert decision.fault == named("rate-limit")
    assert decision.retry_at == NOW + timedelta(seconds=named("rate-limit").retry[0] - 1)
    assert (decision.act, decision.verdict) == (None, None)
    again = decide(on(), seen, POLICY, NOW + timedelta(seconds=20))
    assert again.act == Call(verb=Verb.START)


def test_the_pauses_grow_and_the_last_one_stays() -> None:
    fault = named("rate-limit")
    for failures, pause in enumerate((*fault.retry, fault.retry[-1], fault.retry[-1]), start=1):
        gone = tuple(attempt(Verb.START, ended_at=NOW, fault=fault) for _ in range(failures))
        seen = Observation(machine=machine("TERMINATED", at=NOW + timedelta(seconds=1)), attempts=gone)
        assert decide(on(), seen, POLICY, NOW).retry_at == NOW + timedelta(seconds=pause)


def test_a_call_that_was_lost_is_repeated_at_its_time_and_people_see_why_meanwhile() -> None:
    lost = attempt(Verb.START, operation="")
    seen = Observation(
        machine=machine("TERMINATED"),
        attempts=(lost,),
        call_fault=named("unavailable"),
        call_again=NOW + timedelta(seconds=5),
    )
    waits = decide(on(), seen, POLICY, NOW)
    assert (waits.act, waits.fault, waits.retry_at) == (None, named("unavailable"), seen.call_again)
    assert decide(on(), seen, POLICY, NOW + timedelta(seconds=5)).act == Replay(attempt=lost)


def test_google_is_looked_at_less_often_while_it_asks_for_fewer_calls() -> None:
    for seen in (
        Observation(machine_fault=named("rate-limit")),
        Observation(machine=machine("TERMINATED"), machine_fault=named("rate-limit")),
        Observation(machine=machine("PROVISIONING"), call_fault=named("rate-limit")),
    ):
        assert decide(on(), seen, POLICY, NOW).machine_every == timedelta(seconds=20)


def test_an_outcome_is_judged_only_by_a_look_made_after_it() -> None:
    started = attempt(Verb.START, ended_at=NOW)
    seen = Observation(machine=machine("TERMINATED", at=ago(seconds=1)), attempts=(started,))
    assert decide(on(), seen, POLICY, NOW).verdict is None


def test_a_machine_that_is_off_again_after_its_start_is_not_started_over_and_over() -> None:
    started = attempt(Verb.START, ended_at=ago(seconds=5))
    decision = decide(on(), Observation(machine=machine("TERMINATED"), attempts=(started,)), POLICY, NOW)
    assert decision.act is None
    assert decision.verdict == Verdict(fault=named("stopped-at-once"))


def test_it_is_booting_until_comfyui_answers_and_the_host_is_asked_twice_a_second() -> None:
    decision = decide(on(), Observation(machine=machine("RUNNING")), POLICY, NOW)
    assert decision.verdict == Verdict()
    assert decision.phase is Phase.BOOTING
    assert decision.host_every == BOOTING
    warming = host(comfyui_ready=False, phase="warming")
    assert decide(None, Observation(machine=machine("RUNNING"), host=warming), POLICY, NOW).phase is Phase.BOOTING
    ready = decide(None, Observation(machine=machine("RUNNING"), host=host()), POLICY, NOW)
    assert ready.phase is Phase.READY
    assert (ready.machine_every, ready.host_every) == (STILL, AT_WORK)


def test_what_the_host_said_in_an_earlier_run_is_not_believed() -> None:
    up = machine("RUNNING", last_started=ago(seconds=5))
    old = host(at=ago(seconds=10), by_https=False)
    assert decide(None, Observation(machine=up, host=old), POLICY, NOW).phase is Phase.BOOTING


def test_a_host_that_falls_silent_during_a_run_does_not_make_it_boot_again() -> None:
    silent = Observation(
        machine=machine("RUNNING"), host=host(at=NOW - HOST_FRESH - timedelta(seconds=1)), run=READY_RUN
    )
    assert decide(None, silent, POLICY, NOW).phase is Phase.READY


def test_start_while_stopping_is_kept_and_runs_after_it_is_off() -> None:
    going = decide(on(), Observation(machine=machine("STOPPING")), POLICY, NOW)
    assert (going.act, going.verdict, going.phase) == (None, None, Phase.STOPPING)
    assert decide(on(), Observation(machine=machine("TERMINATED")), POLICY, NOW).act == Call(verb=Verb.START)


def test_start_while_draining_cancels_the_drain() -> None:
    draining = host(drain_until=NOW + timedelta(minutes=9), drain_remaining=1)
    decision = decide(on(), Observation(machine=machine("RUNNING"), host=draining), POLICY, NOW)
    assert decision.act == CancelDrain()
    assert decision.verdict is None


def test_a_start_is_not_done_by_a_look_that_is_older_than_it() -> None:
    seen = Observation(machine=machine("RUNNING", at=ago(seconds=21)), host=host(), run=READY_RUN)
    assert decide(on(), seen, POLICY, NOW).verdict is None
    seen = replace(seen, machine=machine("RUNNING", at=ago(seconds=19)))
    assert decide(on(), seen, POLICY, NOW).verdict == Verdict()


def test_a_host_that_powers_off_is_stopping_and_a_start_waits_for_the_end_of_it() -> None:
    leaving = host(phase="stopping", at=ago(seconds=100))
    seen = Observation(machine=machine("RUNNING"), host=leaving, run=READY_RUN, phase=Phase.READY)
    decision = decide(on(), seen, POLICY, NOW)
    assert (decision.phase, decision.verdict, decision.act) == (Phase.STOPPING, None, None)
    assert decide(None, seen, POLICY, NOW).phase is Phase.STOPPING
    # One that said so and never went is on.
    seen = replace(seen, host=replace(leaving, at=ago(minutes=6)))
    assert decide(on(), seen, POLICY, NOW).verdict == Verdict()
    # Whoever writes guest attributes can't hold a start up.
    seen = replace(seen, host=replace(leaving, by_https=False))
    assert decide(on(), seen, POLICY, NOW).verdict == Verdict()


def test_stop_now_calls_stop() -> None:
    busy = host(queue_running=1)
    seen = Observation(machine=machine("RUNNING"), host=busy, run=READY_RUN)
    decision = decide(off(StopMode.NOW), seen, POLICY, NOW)
    assert decision.act == Call(verb=Verb.STOP)
    assert decision.phase is Phase.STOPPING


def test_a_gentle_stop_asks_the_host_and_waits_for_the_last_prompt() -> None:
    intent = off()
    seen = Observation(machine=machine("RUNNING"), host=host(queue_running=1), run=READY_RUN)
    decision = decide(intent, seen, POLICY, NOW)
    assert decision.act == AskDrain(until=intent.asked_at + POLICY.drain)
    assert decision.phase is Phase.DRAINING
    waiting = host(drain_until=NOW + timedelta(minutes=9), drain_remaining=1)
    assert decide(intent, Observation(machine=machine("RUNNING"), host=waiting, run=READY_RUN), POLICY, NOW).act is None
    done = host(drain_until=NOW + timedelta(minutes=9), drain_remaining=0)
    empty = Observation(machine=machine("RUNNING"), host=done, run=READY_RUN)
    assert decide(intent, empty, POLICY, NOW).act == Call(verb=Verb.STOP)


def test_a_gentle_stop_of_a_silent_host_waits_for_the_deadline_and_a_minute() -> None:
    seen = Observation(machine=machine("RUNNING"), run=READY_RUN)
    assert decide(off(asked_at=ago(minutes=30, seconds=30)), seen, POLICY, NOW).act is None
    assert decide(off(asked_at=ago(minutes=31)), seen, POLICY, NOW).act == Call(verb=Verb.STOP)


def test_a_machine_on_which_comfyui_never_came_up_is_stopped_without_waiting() -> None:
    for status in ("PROVISIONING", "STAGING", "RUNNING"):
        decision = decide(off(), Observation(machine=machine(status)), POLICY, NOW)
        assert decision.act == Call(verb=Verb.STOP)
        assert decision.phase in {Phase.STOPPING, Phase.DRAINING}


def test_a_stop_that_overtakes_a_start_is_done_only_when_the_start_has_ended() -> None:
    starting = attempt(Verb.START)
    seen = Observation(machine=machine("TERMINATED"), attempts=(starting,))
    assert decide(off(), seen, POLICY, NOW).verdict is None
    coming = Observation(machine=machine("PROVISIONING"), attempts=(starting,))
    assert decide(off(), coming, POLICY, NOW).act == Call(verb=Verb.STOP)
    refused = attempt(Verb.START, ended_at=ago(seconds=1), fault=named("no-capacity"))
    assert decide(off(), Observation(machine=machine("TERMINATED"), attempts=(refused,)), POLICY, NOW).verdict == (
        Verdict()
    )


def test_a_stop_that_is_not_allowed_says_so() -> None:
    refused = attempt(Verb.STOP, intent_id=8, ended_at=ago(seconds=1), fault=named("permission"))
    seen = Observation(machine=machine("RUNNING"), attempts=(refused,), host=host())
    assert decide(off(StopMode.NOW), seen, POLICY, NOW).verdict == Verdict(fault=named("permission"))


def test_the_keys_by_which_the_host_knows_us_are_kept_right_while_it_runs() -> None:
    stale = Observation(machine=machine("RUNNING", metadata=PREPARED | {"comfyweb-keys": "old"}), host=host())
    assert decide(None, stale, POLICY, NOW).act == Call(verb=Verb.SET_METADATA)
    tried = attempt(Verb.SET_METADATA, intent_id=None, ended_at=ago(minutes=1), fault=named("permission"))
    again = Observation(machine=stale.machine, host=host(), attempts=(tried,))
    assert decide(None, again, POLICY, NOW).act is None
    idle_minutes = Observation(machine=machine("RUNNING", metadata=PREPARED | {"auth_pass": "x"}), host=host())
    assert decide(None, idle_minutes, POLICY, NOW).act is None


def test_a_missing_machine_ends_what_was_asked() -> None:
    seen = Observation(machine=MachineMissing(at=NOW))
    assert decide(on(), seen, POLICY, NOW).verdict == Verdict(fault=named("not-found"))
    assert decide(off(), seen, POLICY, NOW).verdict == Verdict()
    assert decide(None, seen, POLICY, NOW).phase is Phase.MISSING


@pytest.mark.parametrize("status", ["SUSPENDED", "SUSPENDING", "REPAIRING", "DEPROVISIONING"])
def test_states_in_which_nothing_can_be_done_are_faults_with_words(status: str) -> None:
    decision = decide(None, Observation(machine=machine(status)), POLICY, NOW)
    assert decision.phase is Phase.FAULT
    assert decision.fault == named(status.lower())


def test_a_session_s_end_is_announced_and_drains_without_leaving_before_it() -> None:
    end = OLD_RUN.started_at + POLICY.session_cap
    seen = Observation(machine=machine("RUNNING"), host=host(), run=OLD_RUN)
    early = decide(None, seen, POLICY, end - timedelta(minutes=10, seconds=1))
    assert (early.act, early.ending) == (None, None)
    decision = decide(None, seen, POLICY, NOW)
    assert decision.act == Enforce(guard=Guard.SESSION_CAP, mode=StopMode.DRAIN)
    assert decision.ending is not None
    assert decision.ending.at == end
    intent = off(by=Guard.SESSION_CAP, asked_at=NOW)
    assert decide(intent, seen, POLICY, NOW).act == AskDrain(until=end, stay=True)
    empty = Observation(
        machine=machine("RUNNING"), host=host(drain_until=end, drain_remaining=0, queue_running=0), run=OLD_RUN
    )
    assert decide(intent, empty, POLICY, NOW).act is None
    over = Observation(machine=machine("RUNNING", at=end), host=host(at=end, drain_until=end), run=OLD_RUN)
    assert decide(intent, over, POLICY, end).act == Call(verb=Verb.STOP)


def test_a_session_s_end_can_not_be_taken_back_by_start() -> None:
    draining = host(drain_until=NOW + timedelta(minutes=8), drain_remaining=1)
    decision = decide(on(), Observation(machine=machine("RUNNING"), host=draining, run=OLD_RUN), POLICY, NOW)
    assert decision.act is None
    assert decision.verdict == Verdict()


def test_a_gentle_stop_waits_no_longer_than_the_session() -> None:
    end = OLD_RUN.started_at + POLICY.session_cap
    seen = Observation(machine=machine("RUNNING"), host=host(queue_running=1), run=OLD_RUN)
    assert decide(off(), seen, POLICY, NOW).act == AskDrain(until=end)


def test_of_a_short_session_most_is_left_to_work_in() -> None:
    short = replace(POLICY, session_cap=timedelta(minutes=8))
    for minutes, enforced in ((5, False), (6, True)):
        run = replace(READY_RUN, started_at=ago(minutes=minutes))
        decision = decide(None, Observation(machine=machine("RUNNING"), host=host(), run=run), short, NOW)
        assert isinstance(decision.act, Enforce) is enforced


def test_a_host_that_is_silent_too_long_is_given_up_and_that_is_announced() -> None:
    for minutes, announced, given_up in ((2, False, False), (4, True, False), (15, True, True)):
        seen = Observation(machine=machine("RUNNING"), run=READY_RUN, silence=timedelta(minutes=minutes))
        decision = decide(None, seen, POLICY, NOW)
        assert (decision.ending is not None) is announced
        enforced = Enforce(guard=Guard.SILENT_HOST, mode=StopMode.NOW)
        assert decision.act == (enforced if given_up else None)


def test_a_machine_of_somebody_else_whose_host_was_never_heard_is_left_alone() -> None:
    seen = Observation(machine=machine("RUNNING"), run=FOREIGN_RUN, silence=timedelta(minutes=20))
    decision = decide(None, seen, POLICY, NOW)
    assert (decision.act, decision.ending) == (None, None)
    heard = replace(seen, run=replace(FOREIGN_RUN, boot_id="b"))
    assert isinstance(decide(None, heard, POLICY, NOW).act, Enforce)


def test_a_guard_that_google_refuses_shows_why_and_tries_again() -> None:
    refused = attempt(Verb.STOP, intent_id=8, ended_at=ago(minutes=1), fault=named("permission"))
    seen = Observation(machine=machine("RUNNING"), run=READY_RUN, attempts=(refused,))
    intent = off(StopMode.NOW, by=Guard.SILENT_HOST)
    decision = decide(intent, seen, POLICY, NOW)
    assert (decision.act, decision.verdict, decision.fault) == (None, None, named("permission"))
    later = NOW + GUARD_BACK_OFF
    again = replace(seen, machine=machine("RUNNING", at=later))
    assert decide(intent, again, POLICY, later).act == Call(verb=Verb.STOP)


@pytest.mark.parametrize("intent", [None, off(), on()])
def test_a_stop_that_does_not_end_is_reported_and_called_again_by_force(intent: Intent | None) -> None:
    began = NOW - STOP_STUCK
    seen = Observation(machine=machine("STOPPING"), phase=Phase.STOPPING, since=began + timedelta(seconds=1))
    assert decide(intent, seen, POLICY, NOW).act is None
    stuck = replace(seen, since=began - timedelta(seconds=1))
    decision = decide(intent, stuck, POLICY, NOW)
    assert decision.act == Call(verb=Verb.FORCE_STOP)
    assert decision.fault == named("stop-stuck")
    forced = attempt(Verb.FORCE_STOP, made_at=ago(seconds=9), intent_id=None)
    waiting = decide(intent, replace(stuck, attempts=(forced,)), POLICY, NOW)
    assert (waiting.act, waiting.fault) == (None, named("stop-stuck"))


def test_a_start_that_takes_too_long_is_reported_and_can_be_given_up() -> None:
    seen = Observation(machine=machine("STAGING"), phase=Phase.STARTING, since=NOW - START_STUCK - timedelta(seconds=1))
    assert decide(on(), seen, POLICY, NOW).fault == named("start-stuck")
    assert decide(off(), seen, POLICY, NOW).act == Call(verb=Verb.STOP)


def test_a_process_that_begins_during_a_stop_counts_from_the_call_and_not_from_its_own_first_look() -> None:
    intent = off(StopMode.NOW, asked_at=ago(minutes=6))
    called = attempt(Verb.STOP, intent_id=8, made_at=ago(minutes=6), ended_at=None)
    seen = Observation(
        machine=machine("STOPPING"), attempts=(called,), run=READY_RUN, phase=Phase.STOPPING, since=ago(seconds=4)
    )
    decision = decide(intent, seen, POLICY, NOW)
    assert (decision.act, decision.fault) == (Call(verb=Verb.FORCE_STOP), named("stop-stuck"))
    of_an_earlier_run = replace(seen, run=replace(READY_RUN, started_at=ago(minutes=5)))
    assert decide(intent, of_an_earlier_run, POLICY, NOW).act is None


def test_an_unknown_status_keeps_the_phase_and_is_watched() -> None:
    seen = Observation(machine=machine("RELOCATING"), phase=Phase.READY)
    decision = decide(None, seen, POLICY, NOW)
    assert (decision.phase, decision.act, decision.machine_every) == (Phase.READY, None, MOVING)


STATUSES = st.sampled_from(
    [
        "PENDING",
        "PROVISIONING",
        "STAGING",
        "RUNNING",
        "PENDING_STOP",
        "STOPPING",
        "TERMINATED",
        "STOPPED",
        "SUSPENDING",
        "SUSPENDED",
        "REPAIRING",
        "DEPROVISIONING",
    ]
) | st.text(max_size=12)
TIMES = st.timedeltas(min_value=timedelta(days=-400), max_value=timedelta(days=1)).map(lambda d: NOW + d)
MAYBE_TIMES = st.none() | TIMES
FAULTS = st.none() | st.sampled_from(["no-capacity", "unavailable", "permission", "network"]).map(named)
MACHINES = (
    st.none()
    | st.builds(MachineMissing, at=TIMES)
    | st.builds(
        machine,
        STATUSES,
        at=TIMES,
        last_started=MAYBE_TIMES,
        metadata=st.sampled_from([PREPARED, {}]),
        scheduling=st.sampled_from([LIMITED, Scheduling()]),
    )
)
HOSTS = st.none() | st.builds(
    host,
    at=TIMES,
    by_https=st.booleans(),
    comfyui_ready=st.booleans(),
    queue_running=st.integers(0, 2),
    stops_at=MAYBE_TIMES,
    drain_until=MAYBE_TIMES,
    drain_remaining=st.none() | st.integers(0, 3),
)
ATTEMPTS = st.lists(
    st.builds(
        attempt,
        st.sampled_from(Verb),
        made_at=TIMES,
        intent_id=st.sampled_from([7, 8, None]),
        operation=st.sampled_from(["", "op"]),
        ended_at=MAYBE_TIMES,
        fault=FAULTS,
    ),
    max_size=4,
).map(tuple)
INTENTS = (
    st.none()
    | st.builds(on, asked_at=TIMES)
    | st.builds(off, st.sampled_from(StopMode), asked_at=TIMES, by=st.sampled_from(["s", *Guard]))
)
SEEN = st.builds(
    Observation,
    machine=MACHINES,
    machine_fault=FAULTS,
    host=HOSTS,
    attempts=ATTEMPTS,
    run=st.none() | st.sampled_from([READY_RUN, OLD_RUN, FOREIGN_RUN]),
    phase=st.none() | st.sampled_from(Phase),
    since=MAYBE_TIMES,
    silence=st.timedeltas(min_value=timedelta(), max_value=timedelta(minutes=20)),
)


@given(intent=INTENTS, seen=SEEN)
def test_every_mixture_has_an_answer_that_keeps_the_promises(intent: Intent | None, seen: Observation) -> None:
    decision = decide(intent, seen, POLICY, NOW)
    assert decision == decide(intent, seen, POLICY, NOW)
    assert timedelta() < decision.machine_every <= STILL
    if decision.verdict is not None:
        assert intent is not None
        assert decision.act is None
    if decision.act is None:
        return
    assert isinstance(seen.machine, MachineSeen)
    assert seen.machine_fault is None
    assert NOW - seen.machine.at <= FRESH
    flying = [a for a in seen.attempts if a.in_flight]
    match decision.act:
        case Call(verb=Verb.START | Verb.SET_SCHEDULING):
            assert intent is not None
            assert intent.wanted is Wanted.ON
            assert not flying
            assert seen.machine.status in {"TERMINATED", "STOPPED"}
        case Call(verb=Verb.STOP):
            assert intent is not None
            assert intent.wanted is Wanted.OFF
            assert not any(a.verb in STOPS for a in flying)
        case Call(verb=Verb.FORCE_STOP):
            assert seen.since is not None
            assert NOW - seen.since >= STOP_STUCK
        case Enforce():
            assert intent is None
            assert seen.machine.status == "RUNNING"
        case Call():
            assert not flying
        case Replay(attempt=lost):
            assert lost in flying
        case AskDrain() | CancelDrain():
            assert seen.machine.status == "RUNNING"


@given(seen=SEEN, jobs=st.integers(1, 5))
def test_a_gentle_stop_never_calls_stop_before_its_deadline_while_the_host_tells_of_jobs(
    seen: Observation, jobs: int
) -> None:
    busy = Observation(
        machine=machine("RUNNING", last_started=ago(hours=1)),
        host=host(queue_running=jobs, drain_until=NOW + timedelta(minutes=1), drain_remaining=jobs),
        attempts=seen.attempts,
        run=seen.run,
        phase=seen.phase,
    )
    decision = decide(off(), busy, POLICY, NOW)
    assert not isinstance(decision.act, Call)


def test_a_drain_that_only_guest_attributes_tell_of_keeps_no_start_open() -> None:
    told = host(drain_until=NOW + timedelta(minutes=20), by_https=False)
    decision = decide(on(), Observation(machine=machine("RUNNING"), host=told, run=READY_RUN), POLICY, NOW)
    assert (decision.act, decision.verdict) == (None, Verdict())
