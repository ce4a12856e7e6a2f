"""The slim bar above ComfyUI, the menu that it folds into on a phone, and the question before Stop now."""

from typing import Any, cast

import reflex as rx

from comfyweb.ui.panels import run_time, upload_words
from comfyweb.ui.parts import (
    Cost,
    Ends,
    Left,
    button,
    in_use,
    looking,
    mark,
    number,
    offline,
    own,
    phase,
    queue_pending,
    queue_running,
    queue_unknown,
    seen,
    text,
    there,
    timer,
)
from comfyweb.ui.state import Tab

MENU = "menu"
STOP = "stop"
EVERYONE = "everyone"

WORDS = {
    "off": "Off",
    "waiting": "Waiting",
    "starting": "Starting",
    "booting": "Booting",
    "ready": "Ready",
    "draining": "Finishing",
    "stopping": "Stopping",
    "fault": "Trouble",
    "looking": "Looking",
    "missing": "Missing",
    "logged-out": "Logged out",
}

# What the page calls the phase: before the first look nothing is wrong yet.
shown_phase = rx.cond(looking, "looking", phase)
jobs = queue_running + queue_pending
priced = there("price_per_hour") & there("run", "started_at")
session_is_ending = text("ending", "reason") == "session-cap"
stop_known = there("stops_at") | there("run", "ends_at")


def bar() -> rx.Component:
    """Show the state on the left, and on the right what runs out and what can be done."""
    return rx.el.header(
        rx.el.div(mark(), rx.el.span("comfyweb", class_name="name"), class_name="brand"),
        rx.el.p(
            rx.el.i(class_name="dot", custom_attrs={"aria-hidden": "true"}),
            rx.el.span(state_words()),
            class_name="state",
            custom_attrs={"data-phase": shown_phase},
        ),
        rx.cond(in_use, rx.el.dl(*run_facts(), class_name="run wide")),
        rx.el.span(class_name="gap"),
        rx.cond(phase == "ready", rx.el.div(*until_stop(), class_name="until")),
        rx.cond(phase == "draining", rx.el.div(*until_drained(), class_name="until")),
        rx.cond(
            in_use,
            rx.el.div(
                button("Open in a tab", kind="quiet", data_opens_tab=""),
                button("Stop", Tab.look, kind="quiet", data_opens=STOP, aria_haspopup="dialog"),
                class_name="actions wide",
            ),
        ),
        rx.cond(
            phase != "logged-out",
            rx.el.button(
                rx.el.span(class_name="dots", custom_attrs={"aria-hidden": "true"}),
                type="button",
                class_name="button quiet icon",
                custom_attrs={"popovertarget": MENU, "aria-label": "Menu", "aria-haspopup": "true"},
            ),
        ),
        class_name="bar",
    )


def state_words() -> rx.Component:
    """Say the phase in a word or two, and the job's progress while one runs."""
    return rx.cond(
        (phase == "ready") & (jobs > 0),
        working(),
        rx.fragment(cast("rx.Var[str]", rx.match(shown_phase, *WORDS.items(), "Trouble"))),
    )


def working() -> rx.Component:
    """Say what ComfyUI is at."""
    percent = number("queue", "percent")
    return rx.fragment(
        "Working",
        rx.cond(percent > 0, rx.el.span(" ", round(percent), " %", class_name="figure")),
        rx.cond(queue_pending > 0, rx.el.span(" · ", queue_pending, " waiting", class_name="wide")),
    )


def run_facts() -> tuple[rx.Component, ...]:
    """Since when, for how much, and where."""
    return (
        figure("On for", run_time()),
        rx.cond(
            priced,
            figure(
                "Cost so far, about",
                timer(Cost, since=text("run", "started_at"), rate=text("price_per_hour"), currency=text("currency")),
            ),
        ),
        rx.cond(there("comfyui_url"), figure("Address", rx.el.span(text("comfyui_url"), class_name="address"))),
    )


def way_facts() -> tuple[rx.Component, ...]:
    """How ComfyUI is reached, as far as that is worth knowing."""
    return (
        rx.cond(there("certificate", "words"), figure("Certificate", rx.el.span(text("certificate", "words")))),
        rx.cond(there("upload_limit_mb"), figure("Uploads", rx.el.span(upload_words()))),
    )


def figure(name: str, value: rx.Component) -> rx.Component:
    """One figure; its name is for screen readers, the menu and whoever points at it: the bar has no room for it."""
    return rx.el.div(rx.el.dt(name), rx.el.dd(value), title=name)


def extend(label: str, *, kind: str, **attributes: Any) -> rx.Component:
    """Offer half an hour more, unless Compute Engine ends the run before that could matter."""
    return own(
        Ends,
        button(label, Tab.extend, kind=f"{kind} extends", **attributes),
        until=text("stops_at"),
        cap=text("run", "ends_at"),
    )


def until_stop() -> tuple[rx.Component, ...]:
    """How long it stays on if nobody does anything."""
    return (
        rx.cond(
            stop_known,
            rx.el.p(
                rx.el.span(rx.cond(there("stops_at"), "Stops in ", "On for at most "), class_name="muted"),
                timer(Left, until=text("stops_at"), cap=text("run", "ends_at")),
            ),
        ),
        extend("+30 min", kind="quiet wide", aria_label="Extend by 30 minutes"),
    )


def until_drained() -> tuple[rx.Component, ...]:
    """How many jobs are left, and until when they may take."""
    remaining = number("drain", "remaining")
    return (
        rx.el.p(
            rx.cond(remaining > 0, rx.el.span(remaining, " left · ", class_name="figure")),
            rx.el.span("off within ", class_name="muted wide"),
            timer(Left, until=text("drain", "until")),
        ),
        rx.cond(session_is_ending, rx.fragment(), button("Keep it running", Tab.start, kind="quiet wide")),
    )


def menu() -> rx.Component:
    """Offer what is rarely wanted, and on a phone all of it."""
    return rx.el.div(
        rx.cond(
            in_use,
            rx.fragment(
                rx.el.dl(*run_facts(), class_name="run"),
                rx.el.div(
                    rx.cond(
                        phase == "ready",
                        extend("Extend by 30 minutes", kind="item", data_closes=""),
                        rx.cond(
                            session_is_ending,
                            rx.fragment(),
                            button("Keep it running", Tab.start, kind="item", data_closes=""),
                        ),
                    ),
                    button("Open ComfyUI in a tab", kind="item", data_opens_tab="", data_closes=""),
                    button("Stop the machine…", Tab.look, kind="item", data_opens=STOP, data_closes=""),
                    class_name="narrow",
                ),
                rx.cond(
                    there("certificate", "words") | there("upload_limit_mb"), rx.el.dl(*way_facts(), class_name="way")
                ),
                rx.el.hr(),
            ),
        ),
        button("Log out", Tab.logout, kind="item", data_closes=""),
        button("Log out everyone…", kind="item", data_opens=EVERYONE, data_closes=""),
        id=MENU,
        class_name="menu",
        custom_attrs={"popover": "auto", "aria-label": "Menu", "role": "group"},
    )


def dialogs() -> rx.Component:
    """Keep the questions ready: they are always in the page, so that a status change closes none."""
    return rx.fragment(stop_dialog(), everyone_dialog())


def stop_dialog() -> rx.Component:
    """Say first how many jobs would die, or that nobody knows."""
    return dialog(
        STOP,
        rx.el.h2("Stop the machine?", id=f"{STOP}-title"),
        rx.cond(queue_unknown, unknown_jobs(), rx.cond(jobs > 0, known_jobs(), no_jobs())),
        rx.el.div(
            button("Cancel", kind="quiet", data_closes=""),
            rx.cond(
                phase == "draining",
                rx.fragment(),
                button(stop_words(), Tab.stop, kind="accent", data_closes=""),
            ),
            rx.cond(
                (jobs > 0) | queue_unknown | (phase == "draining"),
                button(stop_now_words(), Tab.stop_now, kind="danger", data_closes=""),
            ),
            class_name="row end",
        ),
    )


def known_jobs() -> rx.Component:
    """Say what the two buttons do to the jobs."""
    return rx.el.p(
        rx.el.b(queue_running, " running"),
        " and ",
        rx.el.b(queue_pending, " waiting"),
        rx.cond(jobs == 1, ". Stop lets it finish, for at most ", ". Stop lets them finish, for at most "),
        drain_minutes(),
        " minutes, and takes no new ones. Stop now kills ",
        rx.cond(jobs == 1, "the job.", rx.fragment("all ", jobs, ".")),
    )


def unknown_jobs() -> rx.Component:
    """Say that nobody knows, and what the two buttons come to then."""
    return rx.el.p(
        "Nobody can say just now what runs or waits: the machine's software does not answer. Stop waits for what may "
        "run, for at most ",
        drain_minutes(),
        " minutes. Stop now kills whatever runs or waits.",
    )


def no_jobs() -> rx.Component:
    """Say that nothing is lost."""
    return rx.el.p("Nothing runs or waits, so no job is lost. Workflows that were not saved stay in the browser.")


def drain_minutes() -> rx.Var[str]:
    """How long a stop waits for jobs at most."""
    return number("drain_minutes").to_string()


def stop_words() -> rx.Component:
    """Say what is waited for."""
    return rx.fragment(rx.cond(jobs > 0, rx.cond(jobs == 1, "Stop when it is done", "Stop when they are done"), "Stop"))


def stop_now_words() -> rx.Component:
    """Name the price, where it is known."""
    return rx.fragment(
        "Stop now",
        rx.cond(jobs > 0, rx.cond(jobs == 1, ", lose 1 job", rx.fragment(", lose ", jobs, " jobs"))),
    )


def everyone_dialog() -> rx.Component:
    """Every browser, this one too."""
    return dialog(
        EVERYONE,
        rx.el.h2("Log out everyone?", id=f"{EVERYONE}-title"),
        rx.el.p("Every browser is logged out of comfyweb and of ComfyUI, this one too. The machine goes on as it is."),
        rx.el.div(
            button("Cancel", kind="quiet", data_closes=""),
            button("Log out everyone", Tab.logout_everyone, kind="danger", data_closes=""),
            class_name="row end",
        ),
    )


def dialog(name: str, *children: rx.Component) -> rx.Component:
    """Make a modal question, opened by `data-opens`."""
    return rx.el.dialog(*children, id=name, custom_attrs={"aria-labelledby": f"{name}-title"})


def lost_band() -> rx.Component:
    """Say when the connection is lost, since what is shown may then be old."""
    return rx.el.div(
        rx.cond(
            offline,
            rx.el.p(
                rx.el.b("Connection lost."), " What you see may be old. Trying again; the machine goes on as it was."
            ),
        ),
        role="alert",
        class_name="lost",
    )


def shown_notices() -> rx.Component:
    """Tell what one should know and may put away."""
    return rx.el.ul(
        rx.cond(phase != "logged-out", rx.foreach(Tab.own_notices, shown_notice)),
        rx.foreach(seen("notices").to(list[str]), shown_notice),
        class_name="notices",
        custom_attrs={"aria-label": "Notices"},
    )


def shown_notice(notice: rx.Var[str]) -> rx.Component:
    """Tell one, until it is put away in this tab."""
    return rx.cond(
        Tab.dismissed.contains(notice),
        rx.fragment(),
        rx.el.li(
            rx.el.span(notice),
            rx.el.button(
                "×",
                type="button",
                on_click=Tab.dismiss(notice),
                class_name="button quiet icon",
                custom_attrs={"aria-label": "Dismiss this notice"},
            ),
        ),
    )
