"""docs/demo.md says all that the emulator can do: its calls, its control endpoint, its options."""

import re
from pathlib import Path

from comfyweb.demo.__main__ import parser
from comfyweb.demo.box import Box
from comfyweb.demo.control import Control
from comfyweb.demo.faults import KINDS
from comfyweb.demo.methods import METHODS
from comfyweb.demo.provision import Provision
from comfyweb.demo.world import World
from tests.cloudbox import STARTED

DOCUMENT = (Path(__file__).parent.parent.parent / "docs/demo.md").read_text()
CALLS = DOCUMENT.partition("## The control endpoint")[0]


def test_it_names_every_call_and_none_that_is_not_there() -> None:
    named: set[str] = set()
    for resources, calls in re.findall(r"^\| ((?:`\w+`[^|]*)+) \| ([^|]+) \|$", CALLS, re.MULTILINE):
        for resource in re.findall(r"`(\w+)`", resources):
            verbs = re.sub(r"\([^)]*\)", "", calls).split(",")
            named |= {f"{resource}.{verb.strip()}" for verb in verbs}
    assert named == METHODS


def test_it_names_every_route_of_the_control_endpoint() -> None:
    box = Box(World(now=STARTED))
    routes = [*Control(box).routes(), *Provision(box).routes()]
    calls = {
        f"{method} {route.path}"
        for route in routes
        for method in (route.methods or set()) - {"HEAD"}
        if route.path.startswith("/control") and "." not in route.path
    }
    assert calls == set(re.findall(r"`((?:GET|POST|DELETE) /control[\w/]*)`", DOCUMENT))


def test_it_names_every_kind_of_fault() -> None:
    table = DOCUMENT.split("| kind of fault |")[1].split("\n\n")[0]
    first = [row.split("|")[1] for row in table.splitlines()[2:]]
    assert {kind for cell in first for kind in re.findall(r"`([\w-]+)`", cell)} == KINDS


def test_it_names_every_option() -> None:
    options = {name for action in parser()._actions for name in action.option_strings if name.startswith("--")}
    assert options - {"--help"} == set(re.findall(r"^\| `(--\w+)", DOCUMENT, re.MULTILINE))
