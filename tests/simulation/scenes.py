"""Short stories with one point each, for the bugs that a random world-line meets too seldom."""

from collections.abc import Callable

from tests.simulation.guest import NEVER
from tests.simulation.simulation import Simulation

Scene = Callable[[Simulation], None]

MINUTE = 60.0
HOUR = 3600.0
SEED = 1
CAP_HOURS = 1.5


def play(scene: Scene) -> None:
    """Let it happen. Raises Broken."""
    simulation = Simulation(SEED, cap_hours=CAP_HOURS, drain_minutes=20, idle_minutes=240)
    try:
        scene(simulation)
    finally:
        simulation.close()


def _ready(s: Simulation) -> None:
    s.do(s.press_start())
    s.live(6 * MINUTE)
    assert s.outside.guest.ready


def _mute(s: Simulation) -> None:
    s.facts.say("the host is silent by https and attributes")
    s.outside.guest.https = s.outside.guest.attributes = False


def another_system(s: Simulation) -> None:
    guest = s.outside.guest
    guest.https = guest.attributes = guest.comes_up = False
    guest.frozen = True
    s.outside.console("start")
    s.live(2 * HOUR)


def killed_after_a_stop(s: Simulation) -> None:
    _ready(s)
    s.do(s.press_stop_now())
    s.do(s.kill_app(0, 5))
    s.live(40 * MINUTE)


def stop_during_an_endless_prompt(s: Simulation) -> None:
    _ready(s)
    s.outside.guest.queue(NEVER)
    s.live(10)
    s.do(s.press_stop())
    s.live(70 * MINUTE)


def start_while_it_stops(s: Simulation) -> None:
    _ready(s)
    s.do(s.press_stop_now())
    s.live(6)
    s.do(s.press_start())
    s.live(6 * MINUTE)


def stop_now_during_a_gentle_stop(s: Simulation) -> None:
    _ready(s)
    s.outside.guest.queue(NEVER)
    s.do(s.press_stop())
    s.live(5)
    s.do(s.press_stop_now())
    s.live(3 * MINUTE)


def silent_host(s: Simulation) -> None:
    _ready(s)
    s.live(12 * MINUTE)
    _mute(s)
    s.live(40 * MINUTE)


def stop_of_a_silent_host(s: Simulation) -> None:
    _ready(s)
    s.live(12 * MINUTE)
    _mute(s)
    s.live(8 * MINUTE)
    s.do(s.press_stop())
    s.live(30 * MINUTE)


def silent_host_and_a_stall(s: Simulation) -> None:
    _ready(s)
    s.live(12 * MINUTE)
    _mute(s)
    s.live(4 * MINUTE)
    s.do(s.stall_app(25 * MINUTE))
    s.live(50 * MINUTE)


def long_session_after_a_slow_boot(s: Simulation) -> None:
    guest = s.outside.guest
    guest.comes_up = False
    s.do(s.press_start())
    s.live(10 * MINUTE)
    guest.heal()
    s.live(10 * MINUTE)
    guest.queue(NEVER)
    s.live(CAP_HOURS * HOUR)


def long_session_without_the_app(s: Simulation) -> None:
    _ready(s)
    s.outside.guest.queue(NEVER)
    s.do(s.app.kill())
    s.live(CAP_HOURS * HOUR + 20 * MINUTE)


def refused_for_a_while(s: Simulation) -> None:
    s.outside.fault("rate-limit", "start", times=None, seconds=3 * MINUTE)
    s.do(s.press_start())
    s.live(8 * MINUTE)
