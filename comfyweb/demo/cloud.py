"""Several projects side by side: what one has the others don't see, but no two have the same external address."""

import re
from collections.abc import Sequence
from datetime import datetime

from comfyweb.demo.model import Refusal
from comfyweb.demo.world import World

_PROJECT = re.compile(r"[a-z][-a-z0-9]{4,28}[a-z0-9]")
_ZONE = re.compile(r"[a-z]+-[a-z]+[0-9]+-[a-z]")
MOST_PROJECTS = 100


class Cloud:
    """The projects by name. `first` is the one that was there from the beginning."""

    def __init__(self, first: World) -> None:
        self.first = first
        self.projects: dict[str, World] = {first.project: first}

    def advance(self, now: datetime) -> None:
        """Do in each project all that is due until `now`."""
        for world in self.projects.values():
            world.advance(now)

    def project(self, name: str) -> World:
        """Find a project. Raises `Refusal`."""
        if name not in self.projects:
            raise Refusal.not_found(f"projects/{name}")
        return self.projects[name]

    def create(self, name: str, zones: Sequence[str] = ()) -> World:
        """Make an empty project, with the zones of the first one unless it is told others. Raises `Refusal`."""
        if name in self.projects:
            raise Refusal.exists(f"projects/{name}")
        if not _PROJECT.fullmatch(name):
            raise Refusal.invalid(f"'{name}' is no name for a project: '{_PROJECT.pattern}'")
        if wrong := [zone for zone in zones if not _ZONE.fullmatch(zone)]:
            raise Refusal.invalid(f"'{wrong[0]}' is no name for a zone: '{_ZONE.pattern}'")
        if len(self.projects) >= MOST_PROJECTS:
            raise Refusal.invalid(f"There are {MOST_PROJECTS} projects already.")
        made = World(
            now=self.first.now,
            times=self.first.times,
            seed=self.first.register.number(),
            zones=tuple(dict.fromkeys(zones)) or self.first.zones,
            project=name,
            machine="",
            pool=self.first.pool,
            faults=self.first.faults,
        )
        self.projects[name] = made
        return made
