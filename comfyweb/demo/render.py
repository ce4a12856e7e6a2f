"""The world in Compute Engine's JSON: ids and 64-bit numbers are strings, what is empty is left out.

Here is what every answer needs, operations and refusals among it; `render_resources` writes what people have, and
`render_catalog` what Compute Engine has on offer.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from comfyweb.demo.model import Operation, OperationError, Refusal

ROOT = "https://www.googleapis.com/compute/v1"
_PACIFIC = timezone(timedelta(hours=-8))


def at(time: datetime) -> str:
    """RFC 3339 with milliseconds and the offset of California, as Google writes it."""
    return time.astimezone(_PACIFIC).isoformat(timespec="milliseconds")


def link(path: str) -> str:
    """Write the address of what is at a path, `projects/...`."""
    return f"{ROOT}/{path}"


def present(**fields: object) -> dict[str, Any]:
    """Keep the fields that have a value."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def where(scope: str) -> dict[str, str]:
    """Write the zone or the region of what is in a scope; nothing when it is global."""
    kind = scope.split("/")[2]
    return {} if kind == "global" else {kind.removesuffix("s"): link(scope)}


def operation(found: Operation, now: datetime) -> dict[str, Any]:
    """Write an operation as `zoneOperations.get` answers it."""
    status = found.status(now)
    error = found.error
    return {
        **present(
            kind="compute#operation",
            id=str(found.id),
            name=found.name,
            clientOperationId=found.request_id,
            operationType=found.kind,
            targetLink=link(found.target),
            targetId=str(found.target_id),
            status=status,
            user=found.user,
            insertTime=at(found.inserted_at),
            startTime=at(found.started_at) if status != "PENDING" else None,
            endTime=at(found.ended_at) if found.ended_at else None,
            selfLink=link(f"{found.scope}/operations/{found.name}"),
        ),
        **where(found.scope),
        "progress": 100 if found.ended_at else 0,
        **(_failure(error) if error else {}),
    }


def _failure(error: OperationError) -> dict[str, Any]:
    return {
        "error": {"errors": [present(code=error.code, message=error.message, errorDetails=list(error.details))]},
        "httpErrorStatusCode": error.http_status,
        "httpErrorMessage": error.http_message,
    }


def refusal(refused: Refusal) -> dict[str, Any]:
    """Write Google's error frame."""
    one = {"message": refused.message, "domain": refused.domain, "reason": refused.reason}
    return {"error": {"code": refused.status, "message": refused.message, "errors": [one]}}


def listing(kind: str, path: str, items: Sequence[Mapping[str, Any]], next_token: str) -> dict[str, Any]:
    """Write a list: `items` is left out when there are none."""
    return {
        **present(kind=kind, items=list(items), nextPageToken=next_token),
        "id": path,
        "selfLink": link(path),
    }


def nothing_in(scope: str) -> dict[str, Any]:
    """Write what an aggregated list says of a zone or region that has none."""
    return {
        "code": "NO_RESULTS_ON_PAGE",
        "message": f"There are no results for scope '{scope}' on this page.",
        "data": [{"key": "scope", "value": scope}],
    }
