"""What the running process offers its two faces. Bound at start: importing a face needs no settings and no secrets."""

from collections.abc import Callable
from dataclasses import dataclass

from comfyweb.access.sessions import Sessions
from comfyweb.control.controller import Controller
from comfyweb.settings import Settings

Count = Callable[[], int]


class NotStarted(RuntimeError):
    """The process has not started yet, or is ending: there is nothing to ask."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The parts of one running process."""

    settings: Settings
    sessions: Sessions
    controller: Controller


class Services:
    """Holds the bound parts; `ui` and `api` read them at each call."""

    def __init__(self) -> None:
        self._bound: Bound | None = None
        self.tabs: Count = lambda: 0  # how many are logged in; the page says so, where there is one

    def bind(self, bound: Bound | None) -> None:
        """Offer these parts from now on, or none when the process ends."""
        self._bound = bound

    @property
    def bound(self) -> Bound:
        """The parts. Raises NotStarted before the process has started."""
        if self._bound is None:
            raise NotStarted("comfyweb has not started yet")
        return self._bound

    @property
    def settings(self) -> Settings:
        """The settings of this process."""
        return self.bound.settings

    @property
    def sessions(self) -> Sessions:
        """Who is logged in."""
        return self.bound.sessions

    @property
    def controller(self) -> Controller:
        """What can be asked of the machine."""
        return self.bound.controller


services = Services()
