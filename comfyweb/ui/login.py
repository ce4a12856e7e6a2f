"""The login page: one field. It shares nothing with the machine's page but the look."""

import reflex as rx

from comfyweb.ui.parts import wires
from comfyweb.ui.state import Tab


def login_page() -> rx.Component:
    """Ask for the password."""
    return rx.el.main(
        wires(),
        rx.el.form(
            rx.el.h1("comfyweb"),
            rx.el.p("ComfyUI on a machine that is on only while you work.", class_name="muted"),
            # For password managers, which file a password under a name.
            rx.el.input(
                name="username",
                default_value="comfyweb",
                auto_complete="username",
                type="text",
                hidden=True,
                read_only=True,
            ),
            rx.el.label("Password", html_for="password"),
            rx.el.input(
                id="password",
                name="password",
                type="password",
                auto_complete="current-password",
                required=True,
                auto_focus=True,
                max_length=1024,
            ),
            rx.el.button(
                rx.cond(Tab.checking, "Checking…", "Log in"),
                type="submit",
                class_name="button accent",
                disabled=Tab.checking,
            ),
            rx.el.p(Tab.login_words, role="alert", class_name="trouble"),
            on_submit=Tab.login,
            class_name="login",
        ),
        class_name="surface",
    )
