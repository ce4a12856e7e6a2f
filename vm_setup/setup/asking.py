"""One question to ComfyUI on this machine."""

import http.client

from vm_setup.host.reading import json_value, mapping

ADDRESS = ("127.0.0.1", 8188)
_TIMEOUT_SECONDS = 2.0
_LIMIT = 4_000_000


def ask(path: str) -> dict[str, object] | None:
    """Return the JSON object at that path of ComfyUI, or None while it doesn't answer."""
    connection = http.client.HTTPConnection(*ADDRESS, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        raw = answer.read(_LIMIT) if answer.status == http.client.OK else b""
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return mapping(json_value(raw, limit=_LIMIT))
