"""The classifier, row by row, against errors that others recorded and tables that others made."""

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any, cast

import pytest
from google.api_core.exceptions import from_http_response
from google.cloud import compute_v1
from requests import Request, Response

from comfyweb.cloud.google_errors import cloud_error
from comfyweb.cloud.google_reading import Operation, operation_fault
from comfyweb.machine.faults import classify
from comfyweb.machine.model import Fault
from tests.faults.others import LIBCLOUD, SAME, SKYPILOT, Row

FIXTURES = files("libcloud") / "test/compute/fixtures/gce"


def failures(body: object) -> Iterator[dict[str, Any]]:
    """Yield every object in an answer that carries an error: a failed operation, or an HTTP error's frame."""
    if isinstance(body, dict):
        found = cast("dict[str, Any]", body)
        if isinstance(found.get("error"), dict):
            yield found
        for part in found.values():
            yield from failures(part)
    elif isinstance(body, list):
        for part in cast("list[object]", body):
            yield from failures(part)


def recorded() -> dict[str, list[dict[str, Any]]]:
    bodies = {
        path.name: json.loads(path.read_text("utf-8")) for path in FIXTURES.iterdir() if path.name.endswith(".json")
    }
    assert len(bodies) > 280
    return {name: found for name, body in bodies.items() if (found := list(failures(body)))}


def judged(failure: dict[str, Any]) -> Fault | None:
    """Return our row for it, by the very way an answer of Google's takes through the client and through ours."""
    if "status" in failure:
        return operation_fault(
            cast("Operation", compute_v1.Operation.from_json(json.dumps(failure), ignore_unknown_fields=True))
        )
    response = Response()
    response.status_code = failure["error"]["code"]
    response.request = Request("GET", "https://compute.googleapis.com/").prepare()
    response._content = json.dumps(failure).encode()
    return cloud_error(from_http_response(response)).fault


def test_every_error_that_libcloud_recorded_has_its_row() -> None:
    found = {name: [fault.code for each in each_of if (fault := judged(each))] for name, each_of in recorded().items()}
    assert found == {name: [row.ours] for name, row in LIBCLOUD.items()}


@pytest.mark.parametrize("row", SKYPILOT, ids=lambda row: f"{row.code} {row.message[:20]}")
def test_every_row_of_skypilot_s_table_is_judged_alike_or_otherwise_for_a_reason(row: Row) -> None:
    fault = classify(row.code, row.message, http_status=row.http_status)
    assert fault.code == row.ours
    assert bool(row.why) == (fault.code not in SAME[row.blocks])


def test_what_is_unknown_keeps_google_s_words() -> None:
    for row in SKYPILOT:
        if row.ours == "unknown":
            assert row.message.rstrip(".") in classify(row.code, row.message, http_status=row.http_status).what
