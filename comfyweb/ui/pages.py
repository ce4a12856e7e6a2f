"""The page's routes."""

import reflex as rx

from comfyweb.ui.guard import Guard
from comfyweb.ui.login import login_page
from comfyweb.ui.machine_page import TITLE, machine_page
from comfyweb.ui.state import LOGIN, MACHINE, Tab, on_error

ICON = "/favicon.svg"


def add_pages(app: rx.App) -> None:
    """Give the app its pages, its look, its guard, and our own answer to a handler that fails."""
    app.stylesheets = ["/style.css"]
    app.reset_style = False
    app.html_lang = "en"
    app.head_components = [
        rx.el.link(rel="icon", href=ICON, type="image/svg+xml"),
        rx.el.meta(name="color-scheme", content="dark light"),
    ]
    app.backend_exception_handler = on_error
    app.add_middleware(Guard())
    app.add_page(machine_page, route=MACHINE, title=TITLE, on_load=Tab.join, description="Your ComfyUI machine.")
    app.add_page(
        login_page, route=LOGIN, title="Log in · comfyweb", on_load=Tab.join, description="Log in to comfyweb."
    )
    app.add_page(lost_page, route="404", title="Not found · comfyweb", description="There is no such page.")


def lost_page() -> rx.Component:
    """Say that there is nothing at this address."""
    return rx.el.main(
        rx.el.section(
            rx.el.h1("Nothing here"),
            rx.el.p("There is no page at this address.", class_name="muted"),
            rx.el.a("To the machine", href=MACHINE, class_name="button accent"),
            class_name="panel",
        ),
        class_name="surface",
    )
