"""Any people, any misfortunes, in any order: hypothesis looks for the shortest story in which a promise is broken."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from comfyweb.demo.model import Status
from tests.simulation.guest import NEVER
from tests.simulation.simulation import Simulation
from tests.simulation.stories import REFUSALS, STOCK_OUTS, VERBS


class AnyStory(RuleBasedStateMachine):
    """The invariants judge along the way (`invariants.py`); at the end there must be a way out."""

    @initialize(seed=st.integers(0, 1000), cap_hours=st.sampled_from([0.75, 2]), idle_minutes=st.sampled_from([5, 30]))
    def begin(self, seed: int, cap_hours: float, idle_minutes: float) -> None:
        self.simulation = Simulation(seed, cap_hours=cap_hours, drain_minutes=10, idle_minutes=idle_minutes)
        self.outside = self.simulation.outside

    # -- time: a moment, some minutes, and as long as a boot, a drain or a session takes -----------------------------

    @rule(seconds=st.floats(0.01, 20))
    def a_moment_passes(self, seconds: float) -> None:
        self.simulation.live(seconds)

    @rule(minutes=st.sampled_from([1, 4, 16, 50]))
    def time_passes(self, minutes: int) -> None:
        self.simulation.live(minutes * 60)

    # -- people ------------------------------------------------------------------------------------------------------

    @rule()
    def press_start(self) -> None:
        self.simulation.do(self.simulation.press_start())

    @rule()
    def press_stop(self) -> None:
        self.simulation.do(self.simulation.press_stop())

    @rule()
    def press_stop_now(self) -> None:
        self.simulation.do(self.simulation.press_stop_now())

    @rule(minutes=st.sampled_from([1, 60, 120]))
    def press_extend(self, minutes: float) -> None:
        self.simulation.do(self.simulation.press_extend(minutes))

    @precondition(lambda self: self.outside.guest.ready)
    @rule(seconds=st.sampled_from([10.0, 900.0, NEVER]))
    def queue_a_prompt(self, seconds: float) -> None:
        self.outside.guest.queue(seconds)

    # -- others ------------------------------------------------------------------------------------------------------

    @rule(verb=st.sampled_from(["start", "stop", "reset", "delete", "create"]))
    def at_the_console(self, verb: str) -> None:
        self.outside.console(verb)

    @rule()
    def google_takes_it_back(self) -> None:
        self.outside.preempt()

    @precondition(lambda self: self.outside.status == "RUNNING")
    @rule(status=st.sampled_from([Status.SUSPENDED, Status.REPAIRING, Status.STOPPING]))
    def it_gets_stuck(self, status: Status) -> None:
        self.outside.put_in(status)

    # -- misfortune --------------------------------------------------------------------------------------------------

    @rule(kind=st.sampled_from([*REFUSALS, "lost-answer"]), verb=st.sampled_from(VERBS), times=st.integers(1, 4))
    def google_refuses(self, kind: str, verb: str, times: int) -> None:
        self.outside.fault(kind, verb, times=times)

    @rule(kind=st.sampled_from(STOCK_OUTS))
    def no_capacity(self, kind: str) -> None:
        self.outside.fault(kind)

    @rule(seconds=st.sampled_from([5.0, 300.0]), when=st.sampled_from(["before", "after"]))
    def google_hangs(self, seconds: float, when: str) -> None:
        self.simulation.do(self.simulation.google_hangs(seconds, when))

    @rule(steps=st.integers(0, 8), down=st.sampled_from([1.0, 120.0, 4000.0]))
    def the_app_is_killed(self, steps: int, down: float) -> None:
        self.simulation.do(self.simulation.kill_app(steps, down))

    @rule(seconds=st.sampled_from([30.0, 1200.0]))
    def the_app_stands_still(self, seconds: float) -> None:
        self.simulation.do(self.simulation.stall_app(seconds))

    @rule(
        https=st.booleans(), attributes=st.booleans(), comes_up=st.booleans(), frozen=st.booleans(), lies=st.booleans()
    )
    def the_host_changes(self, *, https: bool, attributes: bool, comes_up: bool, frozen: bool, lies: bool) -> None:
        guest = self.outside.guest
        guest.heal()
        guest.https, guest.attributes, guest.comes_up = https, attributes, comes_up
        guest.frozen, guest.lies = frozen, lies

    def teardown(self) -> None:
        if not hasattr(self, "simulation"):
            return
        try:
            if self.simulation.facts.failure is None:
                self.simulation.do(self.simulation.find_the_way_out(on_first=self.simulation.seed % 2 == 0))
        finally:
            self.simulation.close()


AnyStory.TestCase.settings = settings(
    max_examples=10,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestAnyStory = pytest.mark.slow(AnyStory.TestCase)
