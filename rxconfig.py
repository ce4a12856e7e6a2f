"""What Reflex is told, for building the page and for running it. Nothing here depends on settings or secrets."""

from typing import Unpack

import reflex as rx
from reflex_base.plugins.base import PreCompileContext

ENDPOINT = "  const endpoint = new URL(url_str);\n"
OWN_ENDPOINT = """  const endpoint = new URL(new URL(url_str).pathname, window.location.origin);
  if (url_str.startsWith("ws")) endpoint.protocol = endpoint.protocol.replace("http", "ws");
  return endpoint;
"""
DEV_SERVER = "  server: {\n"
DEV_PROXY = """  server: {
    proxy: Object.fromEntries(["/_event", "/api"].map((path) => [
      path, { target: `http://127.0.0.1:${process.env.REFLEX_BACKEND_PORT}`, ws: true },
    ])),
"""


class OwnOrigin(rx.plugins.Plugin):
    """Lets the page find its websocket where it came from, so that one build serves every host, port and proxy.

    Reflex writes the backend's address into the build, and over https it forgets the port. While developing, the page
    comes from Vite, which then hands the same paths on.
    """

    def pre_compile(self, **context: Unpack[PreCompileContext]) -> None:
        """Change two of the files that Vite builds from."""
        context["add_modify_task"]("utils/state.js", lambda code: _put(code, ENDPOINT, OWN_ENDPOINT))
        context["add_modify_task"]("vite.config.js", lambda code: _put(code, DEV_SERVER, DEV_PROXY))


def _put(code: str, old: str, new: str) -> str:
    """Replace `old`, unless an earlier build has. Raises RuntimeError when Reflex has changed and has neither."""
    if new not in code and code.count(old) != 1:
        raise RuntimeError(f"This Reflex has no {old.strip()!r}: look up how its page finds the websocket now.")
    return code if new in code else code.replace(old, new)


config = rx.Config(
    app_name="comfyweb",
    plugins=[OwnOrigin()],
    disable_plugins=[rx.plugins.SitemapPlugin],
    state_manager_mode=rx.constants.StateManagerMode.MEMORY,
    # Seconds that a closed tab's state is kept. It holds nothing that a reconnecting tab doesn't bring again, and a
    # stranger's tabs must not fill the memory for an hour.
    redis_token_expiration=300,
    # The default lets every site in. comfyweb.py decides about websockets; REST is for our own origin alone.
    cors_allowed_origins=[],
    backend_host="127.0.0.1",
    frontend_compression_formats=["brotli"],
    telemetry_enabled=False,
    show_built_with_reflex=False,
)
