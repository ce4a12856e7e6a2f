"""The small pieces of the page: reading the snapshot, our own elements (`assets/js/`), buttons, wires."""

from typing import Any

import reflex as rx
from reflex.event import EventSpec
from reflex_components_core.core.banner import has_connection_errors

from comfyweb.ui.state import Tab

offline = has_connection_errors


def seen(*path: str) -> rx.vars.ObjectVar[dict[str, Any]]:
    """Return the part of the snapshot at this path, as an object; missing parts are undefined in the browser."""
    part = Tab.snapshot.to(dict[str, Any])
    for name in path:
        part = part[name].to(dict[str, Any])
    return part


def text(*path: str) -> rx.vars.StringVar:
    """Return the text of the snapshot at this path."""
    return seen(*path).to(str)


def there(*path: str) -> rx.vars.BooleanVar:
    """Return whether there is anything at this path: a part that is missing counts as empty."""
    return text(*path).bool()


def number(*path: str) -> rx.vars.NumberVar:
    """Return the number of the snapshot at this path."""
    return seen(*path).to(float)


phase = text("phase")
queue_running = number("queue", "running")
queue_pending = number("queue", "pending")
in_use = (phase == "ready") | (phase == "draining")
queue_unknown = in_use & ~there("queue")
wanted_on = text("wanted") == "on"
looking = (phase == "fault") & (text("fault", "code") == "not-looked-yet")


class Own(rx.Component):
    """One of our own elements, by the name that `page.js` exports. Only pages that use one load that script."""

    library = "$/public/js/page.js"


class Clock(Own):
    """Tells the other elements what time the server has."""

    tag = "Clock"


class Elapsed(Own):
    """The time since `since`."""

    tag = "Elapsed"


class Left(Own):
    """The time until `until` or `cap`, whichever is earlier."""

    tag = "Left"


class Cost(Own):
    """What `rate` an hour comes to since `since`."""

    tag = "Cost"


class Money(Own):
    """An amount in a currency."""

    tag = "Money"


class When(Own):
    """A moment in the reader's time zone."""

    tag = "When"


class Due(Own):
    """Shows its contents from `ahead` seconds before `until` or `cap`."""

    tag = "Due"


class Ends(Own):
    """Shows `.by-idle` or `.by-limit` within it, whichever of `until` and `cap` comes first.

    `.extends` within it is shown while an extension can win a minute.
    """

    tag = "Ends"


class Band(Own):
    """A band that can be put away until its `code` changes; a button within it says `data-dismisses`."""

    tag = "Band"


class Progress(Own):
    """How far a start is."""

    tag = "Progress"


class Frame(Own):
    """ComfyUI itself. It is always in the page, so that nothing that the page shows meanwhile can reload it."""

    tag = "Frame"


def own(element: type[Own], *children: rx.Component, class_name: str = "", **attributes: Any) -> rx.Component:
    """Make one of our own elements; `aria_live` and the like are written with a dash."""
    attrs = {name.replace("_", "-"): value for name, value in attributes.items()}
    return element.create(*children, class_name=class_name, custom_attrs=attrs)


def timer(element: type[Own], class_name: str = "figure", **attributes: Any) -> rx.Component:
    """Make a ticking figure. It is a timer to screen readers, which don't read each second out."""
    return own(element, class_name=class_name, role="timer", aria_live="off", **attributes)


def button(
    label: str | rx.Var[Any] | rx.Component, on_click: EventSpec | Any = None, *, kind: str = "", **attributes: Any
) -> rx.Component:
    """Make a button. One that asks the app is out of reach while the connection is lost: its click would come late."""
    attrs = {name.replace("_", "-"): value for name, value in attributes.items()}
    props: dict[str, Any] = {"type": "button", "class_name": f"button {kind}".strip(), "custom_attrs": attrs}
    if on_click is not None:
        props |= {"on_click": on_click, "disabled": offline}
    return rx.el.button(label, **props)


def said() -> rx.Component:
    """Say what the last button came to, until the phase changes or some seconds have passed."""
    return rx.el.div(
        rx.cond(
            (Tab.words != "") & (Tab.words_since == text("phase_since")),
            rx.el.p(Tab.words, key=Tab.words_count.to_string(), class_name="said"),
        ),
        rx.el.p(id="said-here"),
        role="status",
        class_name="said-place",
    )


def mark() -> rx.Component:
    """Our sign: two nodes and the wire between them."""
    return rx.el.svg(
        rx.el.svg.path(d="M5 8 C 15 8, 9 16, 19 16", fill="none", stroke="currentColor", stroke_width="2"),
        rx.el.svg.circle(cx="5", cy="8", r="3", fill="currentColor"),
        rx.el.svg.circle(cx="19", cy="16", r="3", class_name="end"),
        view_box="0 0 24 24",
        class_name="mark",
        custom_attrs={"aria-hidden": "true"},
    )


def wires() -> rx.Component:
    """Draw the wires behind the panels. Something runs along them only while the machine moves."""
    curves = (
        "M-40 620 C 300 620, 260 180, 640 180 S 1080 520, 1480 420",
        "M-40 700 C 360 700, 420 420, 760 420 S 1120 120, 1480 160",
        "M-40 240 C 240 240, 340 560, 700 560 S 1100 700, 1480 640",
    )
    return rx.el.svg(
        *(rx.el.svg.path(d=curve) for curve in curves),
        *(rx.el.svg.path(d=curve, class_name="pulse", custom_attrs={"pathLength": 1}) for curve in curves),
        view_box="0 0 1440 900",
        preserve_aspect_ratio="xMidYMid slice",
        class_name="wires",
        custom_attrs={"aria-hidden": "true"},
    )
