"""What fills the page while ComfyUI doesn't: off, on its way, stopping, broken, logged out. One panel per phase."""

from typing import Any

import reflex as rx

from comfyweb.ui.parts import (
    Band,
    Elapsed,
    Left,
    Money,
    Progress,
    When,
    button,
    number,
    own,
    phase,
    said,
    seen,
    text,
    there,
    timer,
    wanted_on,
)
from comfyweb.ui.state import LOGIN, Tab

# From these Compute Engine can start a machine again, by itself or when it is asked.
STARTABLE = ["TERMINATED", "STOPPED", "REPAIRING"]

has_fault = there("fault", "title") & (text("fault", "code") != "not-looked-yet")


def panel(*children: Any, kind: str = "") -> rx.Component:
    """Make the one thing in the middle of the surface."""
    return rx.el.section(*children, class_name=f"panel {kind}".strip())


def off() -> rx.Component:
    """Show the machine that is off: what it is, what it costs, and the button."""
    return panel(
        rx.el.p("Off", class_name="eyebrow still"),
        rx.el.h1(text("machine", "name")),
        machine_line(),
        rx.cond(has_fault, fault_card()),
        rx.el.div(
            button(rx.cond(has_fault, "Try again", "Start"), Tab.start, kind="accent large"),
            price(),
            class_name="row start",
        ),
        said(),
        rx.el.dl(
            fact("Stops by itself", limits()),
            rx.cond(there("upload_limit_mb"), fact("Uploads", upload_words())),
            rx.cond(
                there("last_stop", "at"),
                fact("Last stop", text("last_stop", "words"), " ", own(When, at=text("last_stop", "at"))),
            ),
            class_name="facts",
        ),
    )


def machine_line() -> rx.Component:
    """Its type, its GPU and its zone, as Compute Engine names them."""
    return rx.el.p(
        *(
            rx.cond(there("machine", part), rx.el.span(text("machine", part)))
            for part in ("type", "accelerators", "zone")
        ),
        class_name="parts muted",
    )


def price() -> rx.Component:
    """Say what an hour costs, about, and who says so."""
    return rx.cond(
        there("price_per_hour"),
        rx.el.div(
            rx.el.p(
                "≈ ",
                own(Money, amount=text("price_per_hour"), currency=text("currency")),
                " an hour",
                class_name="figure price",
            ),
            rx.el.details(rx.el.summary("Where from?"), rx.el.p(text("price_source")), class_name="source"),
            class_name="price-place",
        ),
        rx.el.p("No list price is known for this machine.", class_name="muted price-place"),
    )


def limits() -> rx.Component:
    """Name the limits that hold without anybody watching."""
    longest = number("longest_run_minutes").to(int)
    minutes = longest % 60
    return rx.fragment(
        "after ",
        number("idle_minutes").to_string(),
        rx.cond(number("idle_minutes") == 1, " idle minute", " idle minutes"),
        rx.cond(
            longest > 0,
            rx.fragment(
                ", at the latest after ",
                (longest // 60).to_string(),
                " h",
                rx.cond(minutes > 0, rx.fragment(" ", minutes.to_string(), " min")),
            ),
        ),
    )


def upload_words() -> rx.Component:
    """Say what an upload to ComfyUI may have: a proxy on the way refuses more, with words of its own."""
    return rx.fragment("up to ", number("upload_limit_mb").to(int), " MB each, Cloudflare's limit on small plans")


def fact(name: str, *words: Any) -> rx.Component:
    """One line of the list below the button."""
    return rx.el.div(rx.el.dt(name), rx.el.dd(*words))


def fault_card() -> rx.Component:
    """Say what went wrong, whether it passes, and what to do."""
    return rx.el.div(
        rx.el.h2(text("fault", "title")),
        rx.el.p(text("fault", "what")),
        what_to_do(),
        rx.el.p(passing(), class_name="muted"),
        role="alert",
        class_name="fault",
    )


def fault_band() -> rx.Component:
    """Say the same in one line while ComfyUI is in use: it takes a strip of the page, and covers nothing."""
    return own(
        Band,
        rx.el.details(
            rx.el.summary(rx.el.b(text("fault", "title")), " ", rx.el.span(passing(), class_name="muted")),
            rx.el.p(text("fault", "what")),
            what_to_do(),
        ),
        rx.el.button(
            "×",
            type="button",
            class_name="button quiet icon",
            custom_attrs={"aria-label": "Dismiss this trouble", "data-dismisses": ""},
        ),
        code=text("fault", "code"),
        role="alert",
    )


def what_to_do() -> rx.Component:
    """Say what the reader can do about it."""
    return rx.el.p(rx.el.b("What to do"), " ", text("fault", "todo"), class_name="todo")


def passing() -> rx.Component:
    """Say whether it passes, and whether somebody has to try again."""
    return rx.cond(
        there("fault", "retry_at"),
        rx.fragment("comfyweb tries again in ", timer(Left, until=text("fault", "retry_at")), "."),
        rx.cond(
            seen("fault", "passes").to(bool),
            rx.cond(
                seen("fault", "retry").to(bool),
                "This passes by itself; comfyweb keeps trying.",
                "This passes with time. comfyweb does not try again by itself.",
            ),
            "This does not pass by itself.",
        ),
    )


def coming() -> rx.Component:
    """Show how far a start is, and at which step."""
    steps = seen("boot", "steps").to(list[dict[str, str]])
    return panel(
        rx.el.p(
            rx.match(phase, ("waiting", "Waiting for capacity"), ("starting", "Starting"), "Booting"),
            class_name="eyebrow",
        ),
        rx.el.h1(text("machine", "name")),
        machine_line(),
        rx.cond(has_fault, fault_card()),
        rx.cond(
            there("boot", "began_at"),
            own(
                Progress,
                began=text("boot", "began_at"),
                expected=rx.cond(number("boot", "expected_seconds") > 0, number("boot", "expected_seconds"), ""),
                steps=steps.to_string(),
            ),
        ),
        rx.el.ol(rx.foreach(steps, step), class_name="steps"),
        said(),
        rx.el.div(button("Cancel the start", Tab.stop, kind="quiet"), class_name="row"),
    )


def step(one: rx.vars.ObjectVar[dict[str, str]]) -> rx.Component:
    """One node of the chain."""
    return rx.el.li(
        rx.el.span(one["name"]),
        rx.cond(one["detail"] != "", rx.el.small(one["detail"], class_name="muted")),
        rx.el.span(
            rx.match(one["state"], ("done", "done"), ("running", "now"), ("failed", "failed"), ""), class_name="state"
        ),
        custom_attrs={"data-state": one["state"], "aria-current": rx.cond(one["state"] == "running", "step", "false")},
    )


def stopping() -> rx.Component:
    """Show that it is on its way down."""
    return panel(
        rx.el.p("Stopping", class_name="eyebrow"),
        rx.el.h1(text("machine", "name")),
        rx.el.p(
            rx.cond(
                wanted_on,
                "It starts again as soon as it is off.",
                "Compute Engine is shutting it down. Then only its disks and reserved addresses cost money.",
            ),
            class_name="muted",
        ),
        rx.cond(has_fault, fault_card()),
        rx.el.div(rx.el.i(), class_name="moving", custom_attrs={"aria-hidden": "true"}),
        rx.cond(there("phase_since"), rx.el.p(timer(Elapsed, since=text("phase_since")), class_name="estimate")),
        said(),
        rx.cond(
            wanted_on,
            rx.el.div(button("Leave it off", Tab.stop, kind="quiet"), class_name="row"),
            rx.el.div(button("Start again", Tab.start, kind="quiet"), class_name="row"),
        ),
    )


def broken() -> rx.Component:
    """Nothing can be promised: the machine is in a state of its own, or can't be seen, or isn't there."""
    return panel(
        rx.el.p(rx.cond(phase == "missing", "Missing", "Trouble"), class_name="eyebrow danger"),
        rx.el.h1(text("machine", "name")),
        rx.el.p(
            *(
                rx.cond(there("machine", part), rx.el.span(text("machine", part)))
                for part in ("project", "zone", "type")
            ),
            class_name="parts muted",
        ),
        rx.cond(has_fault, fault_card()),
        said(),
        rx.cond(phase == "fault", way_out()),
        kind="broken",
    )


def way_out() -> rx.Component:
    """Offer a start only where Compute Engine could take one, and where none is on its way already."""
    return rx.cond(
        wanted_on,
        rx.fragment(
            rx.el.p("It will be started as soon as that is possible.", class_name="muted"),
            rx.el.div(button("Cancel the start", Tab.stop, kind="quiet"), class_name="row"),
        ),
        rx.cond(
            rx.Var.create(STARTABLE).contains(text("status")),
            rx.el.div(button("Try again", Tab.start, kind="accent"), class_name="row"),
        ),
    )


def not_seen_yet() -> rx.Component:
    """Stay calm in the seconds before the first look: nothing is wrong yet."""
    return panel(
        rx.el.p("Looking", class_name="eyebrow still"),
        rx.el.h1("Looking for the machine…"),
        rx.el.p("comfyweb has just started and asks Compute Engine how the machine is.", class_name="muted"),
    )


def logged_out() -> rx.Component:
    """Say that this tab's login has ended."""
    return panel(
        rx.el.h1("You are logged out"),
        rx.el.p("The machine goes on as it was. Log in to see it.", class_name="muted"),
        rx.el.div(rx.el.a("Log in", href=LOGIN, class_name="button accent large"), class_name="row"),
    )


def run_time() -> rx.Component:
    """How long the machine has been on."""
    return timer(Elapsed, since=text("run", "started_at"))
