"""The part of ComfyUI's server module that custom nodes use: where they add calls of their own."""

from collections.abc import Awaitable, Callable
from typing import Any

Call = Callable[[Any], Awaitable[Any]]


class Routes:
    """The calls that nodes have added, by path."""

    def __init__(self) -> None:
        self.calls: dict[str, Call] = {}

    def get(self, path: str) -> Callable[[Call], Call]:
        """Add one, as a decorator."""

        def add(call: Call) -> Call:
            self.calls[path] = call
            return call

        return add


class PromptServer:
    """Is found by its class."""

    instance: "PromptServer"

    def __init__(self) -> None:
        self.routes = Routes()


PromptServer.instance = PromptServer()
