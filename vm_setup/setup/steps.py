"""Which step the boot is at, for the keeper to tell: /run/comfyweb/steps.json.

The file is the truth, because two programs write it: reconcile, and what waits for ComfyUI's first answer. How long a
step that had work to do took is kept over boots; the median of the last five is what the next one is expected to take.
"""

import statistics
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from vm_setup.base import files
from vm_setup.base.paths import Paths
from vm_setup.base.places import DURATIONS, STEPS
from vm_setup.host.boot import COMFYUI, DRIVER
from vm_setup.host.reading import items, mapping, number
from vm_setup.setup.system import LOG

PACKAGES, GATE, DISK, INSTALL = "packages", "gate", "disk", "comfyui-install"
NAMES = (PACKAGES, GATE, DISK, DRIVER, INSTALL, COMFYUI)
# They take no time worth showing: they are seen only when they fail.
KEEPER, FIREWALL, CERTIFICATE = "keeper", "firewall", "certificate"
_KEPT = 5

Row = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The steps of this boot."""

    paths: Paths
    now: Callable[[], float]

    def start(self) -> None:
        """Begin a run of reconcile: every step waits, but for one that is over already; no warnings."""
        with self._change() as state:
            known = {row["name"]: row for row in _rows(state)}
            fresh = (_row(name) for name in NAMES)
            state["steps"] = [known[r["name"]] if _is_over(known.get(r["name"]), r["name"]) else r for r in fresh]
            state["warnings"] = []

    def begin(self, name: str, detail: str = "") -> None:
        """Say that a step has work to do, and how long that usually takes."""
        LOG.info("%s: %s", name, detail or "begins")
        usual = [n for n in (number(v) for v in items(self._durations().get(name)) or []) if n is not None]
        expected = round(statistics.median(usual), 1) if usual else None
        self._set(name, state="running", began=self.now(), seconds=None, expected_seconds=expected, detail=detail)

    def detail(self, name: str, detail: str) -> None:
        """Say what a step that runs is doing now."""
        LOG.info("%s: %s", name, detail)
        self._set(name, detail=detail)

    def done(self, name: str, detail: str = "") -> None:
        """Say that a step is over, and remember how long it took if it had begun."""
        row = self.row(name)
        began = number(row.get("began"))
        took = round(self.now() - began, 1) if began is not None and row.get("state") == "running" else None
        self._set(name, state="done", seconds=took or 0.0, detail=detail)
        if took is not None:
            durations = self._durations()
            durations[name] = [*(items(durations.get(name)) or []), took][-_KEPT:]
            files.write_object(self.paths.state / DURATIONS, durations)
            LOG.info("%s: done in %.1f s. %s", name, took, detail)

    def failed(self, name: str, words: str) -> None:
        """Say that a step can't be done, as a warning too."""
        began = number(self.row(name).get("began"))
        self._set(name, state="failed", seconds=None if began is None else round(self.now() - began, 1), detail=words)
        self.warn(words)

    def warn(self, words: str) -> None:
        """Tell the person at the page; the same words once."""
        LOG.warning("%s", words)
        with self._change() as state:
            warnings = items(state.get("warnings")) or []
            state["warnings"] = warnings if words in warnings else [*warnings, words]

    def retract(self, beginning: str) -> None:
        """Take back the warnings that begin so: what they were about is over."""
        with self._change() as state:
            warnings = items(state.get("warnings")) or []
            state["warnings"] = [words for words in warnings if not str(words).startswith(beginning)]

    def row(self, name: str) -> Row:
        """Return what is known of a step."""
        none: Row = {}
        return next((row for row in _rows(files.read_object(self._file)) if row.get("name") == name), none)

    def _set(self, name: str, **values: object) -> None:
        with self._change() as state:
            rows = _rows(state)
            if not any(row.get("name") == name for row in rows):
                rows.append(_row(name))
            state["steps"] = [{**row, **values} if row.get("name") == name else row for row in rows]

    @property
    def _file(self) -> files.Path:
        return self.paths.runtime / STEPS

    def _durations(self) -> dict[str, object]:
        return files.read_object(self.paths.state / DURATIONS)

    @contextmanager
    def _change(self) -> Generator[dict[str, object]]:
        """Read, change and write the file while no other program does."""
        with files.locked(self.paths.runtime / "steps.lock"):
            state = files.read_object(self._file)
            yield state
            files.write_object(self._file, state, durable=False)


def _row(name: str) -> Row:
    blank = {"began": None, "seconds": None, "expected_seconds": None, "detail": ""}
    return {"name": name, "state": "waiting", **blank}


def _rows(state: dict[str, object]) -> list[Row]:
    return [row for row in (mapping(item) for item in items(state.get("steps")) or []) if row is not None]


def _is_over(row: Row | None, name: object) -> bool:
    """ComfyUI is started by its unit at boot, before and beside reconcile: what is known of it stays."""
    return row is not None and name == COMFYUI and row.get("state") in {"running", "done"}
