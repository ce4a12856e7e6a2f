"""One question to ComfyUI on this machine."""

from http import HTTPStatus

from vm_setup.host.reading import json_value, mapping
from vm_setup.keeper import asking

ADDRESS = "http://127.0.0.1:8188"
_SECONDS = 2.0
_LIMIT = 4_000_000


def ask(path: str) -> dict[str, object] | None:
    """Return the JSON object at that path of ComfyUI, or None while it doesn't answer."""
    try:
        answer = asking.ask(ADDRESS, asking.Request(path=path, seconds=_SECONDS, limit=_LIMIT))
    except asking.AskError:
        return None
    return mapping(json_value(answer.body, limit=_LIMIT)) if answer.status == HTTPStatus.OK else None
