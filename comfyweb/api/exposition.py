"""Names what is measured, in Prometheus' form. Importing it imports `prometheus_client`: see `metrics.py`."""

from collections.abc import Iterator
from decimal import Decimal

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from comfyweb.access.sessions import LOGIN_OUTCOMES
from comfyweb.api.events import EventStream
from comfyweb.control.measures import LIMITS, Durations, Measured
from comfyweb.control.services import services
from comfyweb.machine.model import Phase
from comfyweb.machine.snapshot import Snapshot


class _Everything(Collector):
    """Reads the running process at each scrape."""

    def collect(self) -> Iterator[Metric]:
        """Yield one family after the other. Raises NotStarted."""
        bound = services.bound
        measured, snapshot = bound.controller.measured(), bound.controller.publisher.snapshot
        yield from _machine(measured, snapshot)
        yield from _loop(measured)
        logins = CounterMetricFamily("comfyweb_logins", "Attempts to log in, by how they ended.", labels=["outcome"])
        for outcome in LOGIN_OUTCOMES:
            logins.add_metric([outcome], bound.sessions.logins[outcome])
        yield logins
        yield GaugeMetricFamily(
            "comfyweb_sessions", "Logins that have neither ended nor expired.", bound.sessions.count
        )
        yield GaugeMetricFamily("comfyweb_tabs", "Browser tabs that are logged in and connected.", services.tabs())
        yield GaugeMetricFamily("comfyweb_event_streams", "Event streams that are open.", EventStream.open())


def _machine(measured: Measured, snapshot: Snapshot) -> Iterator[Metric]:
    phases = GaugeMetricFamily(
        "comfyweb_machine_phase", "1 for the machine's phase, 0 for the others.", labels=["phase"]
    )
    for phase in Phase:
        phases.add_metric([phase.value], float(snapshot.phase is phase))
    yield phases
    faults = GaugeMetricFamily("comfyweb_machine_fault", "1 for what is wrong by now, by its code.", labels=["code"])
    if fault := snapshot.body["fault"]:
        faults.add_metric([fault["code"]], 1)
    yield faults
    price = Decimal(snapshot.body["price_per_hour"] or 0)
    yield GaugeMetricFamily(
        "comfyweb_machine_run_seconds", "How long the machine is on; 0 while it is off.", measured.run_seconds
    )
    yield GaugeMetricFamily(
        "comfyweb_machine_run_cost_dollars",
        "What this run has cost by now, an estimate by list price; 0 while it is off, or where no price is known.",
        float(price) * measured.run_seconds / 3600,
    )
    yield GaugeMetricFamily(
        "comfyweb_machine_price_dollars_per_hour", "The machine's list price, an estimate; 0: unknown.", float(price)
    )
    yield GaugeMetricFamily(
        "comfyweb_host_silence_seconds",
        "For how long the host of a running machine has not been heard, after the grace of its boot.",
        measured.silence_seconds,
    )


def _loop(measured: Measured) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "comfyweb_loop_leads", "1 where the machine's loop runs, 0 in the processes that follow it.", measured.leads
    )
    calls = CounterMetricFamily(
        "comfyweb_compute_engine_calls",
        "Calls to Compute Engine, by its method and outcome: ok, or the code of a fault in docs/faults.md.",
        labels=["method", "outcome"],
    )
    for (method, outcome), number in sorted(measured.calls.items()):
        calls.add_metric([method, outcome], number)
    yield calls
    yield GaugeMetricFamily(
        "comfyweb_machine_last_look_timestamp_seconds",
        "When Compute Engine was last asked about the machine and answered; 0: never. Its age is time() less this.",
        measured.looked_at.timestamp() if measured.looked_at else 0,
    )
    yield HistogramMetricFamily(
        "comfyweb_loop_turn_duration_seconds",
        "How long a turn of the loop took, its calls included.",
        buckets=_buckets(measured.turns),
        sum_value=measured.turns.total_seconds,
    )
    yield CounterMetricFamily("comfyweb_loop_failed_turns", "Turns of the loop that failed.", measured.failed_turns)


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    limits = [*(str(limit) for limit in LIMITS), "+Inf"]
    return [(limit, sum(durations.counts[: index + 1])) for index, limit in enumerate(limits)]


_registry = CollectorRegistry()
_registry.register(_Everything())
ProcessCollector(registry=_registry)


def exposed() -> bytes:
    """Return all metrics as of now. Raises NotStarted."""
    return generate_latest(_registry)
