"""The machine's page: the bar, and below it either ComfyUI or what is in its way."""

from typing import cast

import reflex as rx

from comfyweb.ui import panels
from comfyweb.ui.bar import WORDS, bar, dialogs, extend, lost_band, menu, shown_notices, shown_phase, stop_known
from comfyweb.ui.parts import (
    Clock,
    Due,
    Ends,
    Frame,
    Left,
    When,
    in_use,
    looking,
    own,
    phase,
    said,
    seen,
    text,
    there,
    timer,
    wires,
)
from comfyweb.ui.state import Tab

WARN_SECONDS = 300
TITLE = cast(
    "rx.Var[str]",
    rx.match(shown_phase, *((name, f"{words} · comfyweb") for name, words in WORDS.items()), "comfyweb"),
)


def machine_page() -> rx.Component:
    """Show the one thing that is true now."""
    return rx.el.div(
        own(Clock, now=Tab.server_time),
        bar(),
        menu(),
        rx.cond(in_use & panels.has_fault, panels.fault_band()),
        rx.el.main(
            frame(),
            rx.cond(in_use, above_frame(), rx.el.div(wires(), shown_notices(), panel(), class_name="surface")),
        ),
        lost_band(),
        dialogs(),
        class_name="page",
        custom_attrs={"data-phase": phase},
    )


def panel() -> rx.Component:
    """Show the panel of the phase; none before the app has answered for the first time."""
    return rx.fragment(
        rx.match(
            phase,
            ("off", panels.off()),
            ("waiting", panels.coming()),
            ("starting", panels.coming()),
            ("booting", panels.coming()),
            ("stopping", panels.stopping()),
            ("logged-out", rx.cond(Tab.is_hydrated, panels.logged_out())),
            rx.cond(looking, panels.not_seen_yet(), panels.broken()),
        )
    )


def frame() -> rx.Component:
    """ComfyUI, full-bleed, and hidden below the panels while the machine is not in use."""
    return own(
        Frame,
        run=text("run", "started_at"),
        origin=text("comfyui_url"),
        embed=rx.cond(seen("embed").to(bool), "yes", "no"),
        why=text("embed_words"),
        site=rx.cond(seen("same_site").to(bool), "same", "cross"),
        phase=phase,
    )


def above_frame() -> rx.Component:
    """Float what has to be said above ComfyUI, so that it takes none of its room."""
    return rx.fragment(
        rx.el.h1("ComfyUI on ", text("machine", "name"), class_name="unseen"),
        rx.el.div(
            rx.cond((phase == "ready") & stop_known, stop_warning()),
            rx.cond(in_use & there("ending"), announced_end()),
            shown_notices(),
            said(),
            class_name="floating",
        ),
    )


def announced_end() -> rx.Component:
    """Tell of a stop that comfyweb itself will make. It is read out once; the countdown is only to be seen."""
    return rx.el.div(
        rx.el.p(text("ending", "words"), role="alert"),
        rx.el.div(timer(Left, until=text("ending", "at"))),
        class_name="warning announced",
    )


def stop_warning() -> rx.Component:
    """Five minutes before it stops by itself. The words are read out once, the countdown is only to be seen."""
    return rx.el.div(
        due(
            own(
                Ends,
                rx.el.p("Nobody seems to be here. The machine stops soon.", class_name="by-idle"),
                rx.el.p(
                    "This run ends at ",
                    own(When, at=text("run", "ends_at")),
                    ": the longest session is over.",
                    class_name="by-limit",
                ),
                until=text("stops_at"),
                cap=text("run", "ends_at"),
            ),
            role="alert",
        ),
        due(
            timer(Left, until=text("stops_at"), cap=text("run", "ends_at")),
            extend("Extend by 30 minutes", kind="accent by-idle"),
        ),
        class_name="warning",
    )


def due(*children: rx.Component, **attributes: str) -> rx.Component:
    """Show something in the last minutes before the machine stops."""
    stops, ends = text("stops_at"), text("run", "ends_at")
    return own(Due, *children, until=stops, cap=ends, ahead=WARN_SECONDS, **attributes)
