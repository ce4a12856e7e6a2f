"""The part of aiohttp with which a node's call answers: nothing of it is installed where the stand-in runs."""

from typing import Any


class web:  # noqa: N801 - aiohttp's own name
    """As `aiohttp.web`."""

    Request = object
    Response = dict

    @staticmethod
    def json_response(body: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Answer with JSON."""
        return body
