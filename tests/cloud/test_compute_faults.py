"""Compute Engine in foul weather: every failure comes out as words, never as a traceback of the client's."""

import asyncio
import json
import socket
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from google.api_core.exceptions import from_http_status
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, RefreshError, TransportError
from requests import exceptions as http

from comfyweb.cloud import compute as compute_module
from comfyweb.cloud import google_calls
from comfyweb.cloud.compute import TIMEOUT_SECONDS, CloudError, ComputeEngine, OperationSeen
from comfyweb.cloud.google_errors import cloud_error
from comfyweb.machine.faults import named
from comfyweb.machine.model import MachineSeen
from tests.cloud.wire import RESET, SILENCE, answer, wire
from tests.cloudbox import still_cloud

ZONE = "us-central1-a"
NAME = "projects/demo-project/zones/us-central1-a/instances/comfyui-gpu"


def engine(
    url: str | None, *, credentials_file: Path | None = None, timeout_seconds: float = TIMEOUT_SECONDS
) -> ComputeEngine:
    return ComputeEngine(
        project="demo-project",
        instance="comfyui-gpu",
        endpoint=url,
        credentials_file=credentials_file,
        now=lambda: datetime(2026, 11, 23, 12, 0, tzinfo=UTC),
        timeout_seconds=timeout_seconds,
    )


def new_id() -> str:
    return str(uuid.uuid4())


async def failure_of_look(
    url: str | None, *, credentials_file: Path | None = None, timeout_seconds: float = TIMEOUT_SECONDS
) -> CloudError:
    compute = engine(url, credentials_file=credentials_file, timeout_seconds=timeout_seconds)
    try:
        with pytest.raises(CloudError) as caught:
            await compute.look(ZONE)
    finally:
        await compute.close()
    return caught.value


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("stockout", "no-capacity", "zone us-central1-a"),
        ("stockout-details", "no-capacity", "zone us-central1-a"),
        ("quota", "quota-global", "GPUS_ALL_REGIONS"),
        ("quota-region", "quota", "NVIDIA_T4_GPUS for region us-central1 is 1"),
    ],
)
async def test_a_start_that_fails_later_says_why(kind: str, code: str, words: str) -> None:
    with still_cloud() as box:
        compute = engine(box.url)
        box.fault(kind)
        name = await compute.start(ZONE, new_id())
        box.advance(timedelta(minutes=10))
        seen = await compute.operation(ZONE, name)
        assert seen.done
        assert seen.fault is not None
        assert (seen.fault.code, seen.fault.retry) == (code, ())
        assert words in seen.fault.what
        await compute.close()


@pytest.mark.parametrize(
    ("kind", "code", "lost"),
    [
        ("permission", "permission", False),
        ("unavailable", "unavailable", True),
        ("internal", "unavailable", True),
        ("rate-limit", "rate-limit", False),
        ("too-many-requests", "rate-limit", False),
        ("bad-gateway", "unavailable", True),
        ("lost-answer", "unavailable", True),
    ],
)
async def test_a_call_that_is_refused_says_why_and_whether_it_may_have_worked(
    kind: str, code: str, *, lost: bool
) -> None:
    with still_cloud() as box:
        compute = engine(box.url)
        box.fault(kind, verb="start")
        with pytest.raises(CloudError) as caught:
            await compute.start(ZONE, new_id())
        assert (caught.value.fault.code, caught.value.lost) == (code, lost)
        assert box.url not in str(caught.value)
        await compute.close()


async def test_an_answer_that_was_lost_is_fetched_by_the_same_request_id() -> None:
    with still_cloud() as box:
        compute = engine(box.url)
        box.fault("lost-answer", verb="start")
        request_id = new_id()
        with pytest.raises(CloudError):
            await compute.start(ZONE, request_id)
        name = await compute.start(ZONE, request_id)
        assert (await compute.operation(ZONE, name)).fault is None
        await compute.close()


async def test_a_missing_permission_is_named() -> None:
    with still_cloud() as box:
        box.fault("permission", verb="get")
        fault = (await failure_of_look(box.url)).fault
    assert "compute.instances.get" in fault.what
    assert "demo-project" in fault.todo


async def test_an_operation_that_google_has_forgotten_is_done_and_lets_the_loop_go_on() -> None:
    with still_cloud() as box:
        compute = engine(box.url)
        fault = named("operation-forgotten")
        assert await compute.operation(ZONE, "operation-1") == OperationSeen(done=True, fault=fault)
        assert fault.retry
        await compute.close()


def operation(**more: Any) -> dict[str, Any]:
    return {"name": "op-1", "status": "DONE", **more}


STOCK_OUT = {"code": "ZONE_RESOURCE_POOL_EXHAUSTED", "message": "The zone 'projects/p/zones/z-1' is full."}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (operation(), None),
        (operation(error={"errors": [STOCK_OUT]}), "no-capacity"),
        (operation(error={"errors": [{"code": "NEW", "message": "x"}, STOCK_OUT]}), "no-capacity"),
        (operation(error={"errors": [{"code": "NEW", "message": "x"}]}, httpErrorStatusCode=503), "unknown"),
        (operation(httpErrorStatusCode=503, httpErrorMessage="SERVICE UNAVAILABLE"), "unavailable"),
        (operation(httpErrorStatusCode=200), None),
    ],
)
async def test_a_done_operation_is_judged_by_its_errors_first(body: dict[str, Any], code: str | None) -> None:
    async with wire(answer(200, body)) as google:
        compute = engine(google.url)
        seen = await compute.operation(ZONE, "op-1")
        await compute.close()
    assert seen.done
    assert (seen.fault.code if seen.fault else None) == code


@pytest.mark.parametrize("status", ["RUNNING", "PENDING", "SOMETHING_NEW"])
async def test_an_operation_that_is_not_done_is_awaited(status: str) -> None:
    async with wire(answer(200, operation(status=status))) as google:
        compute = engine(google.url)
        assert await compute.operation(ZONE, "op-1") == OperationSeen(done=False)
        await compute.close()


WHOLE = json.dumps({"name": "comfyui-gpu", "status": "RUNNING"}).encode()


@pytest.mark.parametrize(
    "raw",
    [
        answer(200, b"<html>Sign in to the hotel's network</html>"),
        answer(200, b""),
        answer(200, b"{}"),
        answer(200, b"null"),
        answer(200, b"[1]"),
        answer(200, b"\xff\xfe\x00garbage"),
        answer(200, WHOLE[:-3]),
        answer(200, {"name": "comfyui-gpu", "status": {"not": "a word"}}),
        answer(200, {"name": "another", "status": "RUNNING"}),
        f"HTTP/1.1 200 OK\r\nContent-Length: {len(WHOLE)}\r\n\r\n".encode() + WHOLE[:10],
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"na',
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        answer(404, b"<html>nginx</html>"),
        answer(403, {"error": "a word, where Google has an object"}),
        answer(403, ["a", "list"]),
        answer(400, {"error": {"errors": "x", "message": None}}),
    ],
)
async def test_an_answer_that_is_not_google_s_or_half_is_a_fault(raw: bytes) -> None:
    async with wire(raw) as google:
        error = await failure_of_look(google.url)
    assert error.fault.code in {"bad-answer", "unknown", "permission"}
    assert error.fault.what


@pytest.mark.parametrize("raw", [RESET, b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 what\r\n\r\n"])
async def test_a_connection_that_breaks_off_is_the_network_s_fault(raw: bytes) -> None:
    async with wire(raw) as google:
        error = await failure_of_look(google.url)
    assert (error.fault.code, bool(error.fault.retry), error.lost) == ("network", True, True)


async def test_an_endpoint_that_nobody_listens_at_is_the_network_s_fault() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        error = await failure_of_look(f"http://127.0.0.1:{nobody.getsockname()[1]}")
    assert error.fault.code == "network"


async def test_silence_ends_by_the_call_s_timeout() -> None:
    async with wire(SILENCE) as google:
        error = await failure_of_look(google.url, timeout_seconds=0.1)
    assert error.fault.code == "network-timeout"


async def test_a_call_that_takes_too_long_in_all_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute_module, "WITHIN_SECONDS", 0.1)
    async with wire(SILENCE) as google:
        error = await failure_of_look(google.url)
    assert error.fault.code == "network-timeout"
    assert "within 0.1 s" in str(error)


async def test_a_cancelled_call_leaves_the_others_alone() -> None:
    replies = iter([SILENCE])
    async with wire(lambda _: next(replies, answer(200, WHOLE))) as google:
        compute = engine(google.url, timeout_seconds=0.5)
        hanging = asyncio.create_task(compute.look(ZONE))
        await google.asked.wait()
        hanging.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hanging
        assert isinstance(await compute.look(ZONE), MachineSeen)
        await compute.close()


async def test_after_closing_every_call_is_a_fault() -> None:
    compute = engine("http://127.0.0.1:9")
    await compute.close()
    with pytest.raises(CloudError):
        await compute.look(ZONE)


# In the frame of Google's newer APIs: https://google.aip.dev/193
IAM_IS_OFF = {
    "error": {
        "code": 403,
        "message": "Identity and Access Management (IAM) API has not been used in project 464646464646 before or it is "
        "disabled. Enable it by visiting https://console.developers.google.com/apis/api/iam.googleapis.com/overview",
        "status": "PERMISSION_DENIED",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "SERVICE_DISABLED",
                "domain": "googleapis.com",
                "metadata": {"service": "iam.googleapis.com", "consumer": "projects/464646464646"},
            }
        ],
    }
}


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (answer(403, IAM_IS_OFF), "api-disabled"),
        (answer(200, b"<!doctype html>"), "bad-answer"),
        (answer(200, []), "bad-answer"),
        (answer(200, {"permissions": 1}), "bad-answer"),
        (answer(502, b"<!doctype html>"), "unavailable"),
        (RESET, "network"),
    ],
)
async def test_what_iam_answers_to_whether_we_may_act_for_an_account_is_named(raw: bytes, code: str) -> None:
    async with wire(raw) as google:
        compute = engine(google.url)
        with pytest.raises(CloudError) as caught:
            await compute.may_act_as("machine@demo-project.iam.gserviceaccount.com")
        await compute.close()
    assert caught.value.fault.code == code
    assert google.requests[0].path.endswith(
        "/serviceAccounts/machine%40demo-project.iam.gserviceaccount.com:testIamPermissions"
    )


def absent(path: Path) -> None:
    path.unlink(missing_ok=True)


def a_directory(path: Path) -> None:
    path.mkdir()


def not_json(path: Path) -> None:
    path.write_text("no key at all")


def no_object(path: Path) -> None:
    path.write_text("[]")


def broken_key(path: Path) -> None:
    key = {
        "type": "service_account",
        "private_key": "PRIVATE",
        "client_email": "a@b",
        "token_uri": "https://127.0.0.1:9",
    }
    path.write_text(json.dumps(key))


@pytest.mark.filterwarnings("ignore:The load_credentials_from_file method:DeprecationWarning")
@pytest.mark.parametrize("make", [absent, a_directory, not_json, no_object, broken_key])
async def test_a_key_that_can_not_be_read_is_said_without_showing_it(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "key.json")
    error = await failure_of_look(None, credentials_file=tmp_path / "key.json")
    assert error.fault.code == "credentials-missing"
    assert "PRIVATE" not in str(error)


async def test_no_credentials_anywhere_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    assert (await failure_of_look(None)).fault.code == "credentials-missing"


async def test_refused_credentials_are_read_anew_at_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[AnonymousCredentials] = []

    def read(*_where: object) -> AnonymousCredentials:
        reads.append(AnonymousCredentials())
        return reads[-1]

    monkeypatch.setattr(google_calls, "_credentials", read)
    with still_cloud() as box:
        compute = engine(box.url)
        box.fault("unauthorized", verb="get")
        with pytest.raises(CloudError) as caught:
            await compute.look(ZONE)
        assert caught.value.fault.code == "credentials-refused"
        assert isinstance(await compute.look(ZONE), MachineSeen)
        assert isinstance(await compute.look(ZONE), MachineSeen)
        assert len(reads) == 2
        await compute.close()


def no_name() -> Exception:
    error = http.ConnectionError("HTTPSConnectionPool(host='compute.googleapis.com'): Max retries exceeded")
    error.__cause__ = socket.gaierror(-2, "Name or service not known")
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (no_name(), "network-name"),
        (TransportError(no_name()), "network-name"),
        (http.SSLError("certificate verify failed"), "network-tls"),
        (http.ConnectTimeout(), "network-timeout"),
        (TransportError(http.ReadTimeout()), "network-timeout"),
        (http.ConnectionError("refused"), "network"),
        (DefaultCredentialsError("none"), "credentials-missing"),
        (RefreshError("invalid_grant: Invalid JWT Signature."), "credentials-refused"),
        (RefreshError("try again", retryable=True), "unavailable"),
        (GoogleAuthError("something"), "credentials-refused"),
        (RuntimeError("what the client did not foresee"), "bad-answer"),
        (from_http_status(401, "x"), "credentials-refused"),
        (from_http_status(403, "x", errors=[{"reason": "forbidden", "message": f"on {NAME}"}]), "permission"),
    ],
)
def test_whatever_the_client_raises_has_a_row_in_the_table(error: Exception, code: str) -> None:
    assert cloud_error(error).fault.code == code


def test_the_log_has_no_address_and_people_get_other_words() -> None:
    error = cloud_error(from_http_status(500, "GET https://compute.googleapis.com/x?access_token=s3cret: oh"))
    assert "s3cret" not in str(error)
    assert "unavailable" in str(error)
    assert error.fault == named("unavailable")
