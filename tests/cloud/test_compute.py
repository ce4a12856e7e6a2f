"""Compute Engine in fair weather: the real client against the emulator, and its bytes where those matter."""

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from comfyweb.cloud.compute import PERMISSIONS, CloudError, ComputeEngine
from comfyweb.machine.model import MachineMissing, MachineSeen
from tests.cloud.wire import Request, answer, wire
from tests.cloudbox import CloudBox, still_cloud

ZONE = "us-central1-a"
ASKED = datetime(2026, 11, 23, 12, 0, 1, tzinfo=UTC)
DAY = timedelta(hours=10)


def engine(url: str, *, project: str = "demo-project", instance: str = "comfyui-gpu") -> ComputeEngine:
    return ComputeEngine(project=project, instance=instance, endpoint=url, credentials_file=None, now=lambda: ASKED)


def new_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def box() -> Iterator[CloudBox]:
    with still_cloud() as box:
        yield box


@pytest.fixture
async def compute(box: CloudBox) -> AsyncIterator[ComputeEngine]:
    compute = engine(box.url)
    yield compute
    await compute.close()


async def look(compute: ComputeEngine) -> MachineSeen:
    seen = await compute.look(ZONE)
    assert isinstance(seen, MachineSeen)
    return seen


def test_importing_it_does_not_import_google_s_client() -> None:
    code = "import sys, comfyweb.cloud.compute; print([name for name in sys.modules if name.startswith('google')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_look_reads_the_machine_and_bears_the_time_of_the_question(
    box: CloudBox, compute: ComputeEngine
) -> None:
    off = await look(compute)
    assert (off.at, off.status, off.zone, off.external_ip) == (ASKED, "TERMINATED", ZONE, "")
    assert (off.machine_type, off.accelerators) == ("n1-standard-4", (("nvidia-tesla-t4", 1),))
    await compute.set_scheduling(ZONE, new_id(), DAY)
    box.advance(60)
    await compute.start(ZONE, new_id())
    box.advance(300)
    on = await look(compute)
    assert on.status == "RUNNING"
    assert on.external_ip == box.machine.external_ip != ""
    assert on.last_started is not None
    assert on.terminates_at == on.last_started + DAY
    assert (on.scheduling.max_run_seconds, on.scheduling.termination_action) == (36000, "STOP")
    assert not on.preemptible


async def test_start_and_stop_are_operations_that_end(box: CloudBox, compute: ComputeEngine) -> None:
    name = await compute.start(ZONE, new_id())
    assert not (await compute.operation(ZONE, name)).done
    box.advance(300)
    done = await compute.operation(ZONE, name)
    assert (done.done, done.fault) == (True, None)
    name = await compute.stop(ZONE, new_id())
    box.advance(300)
    assert (await compute.operation(ZONE, name)).done
    assert (await look(compute)).status == "TERMINATED"


async def test_a_repeated_request_id_starts_it_once(compute: ComputeEngine) -> None:
    request_id = new_id()
    assert await compute.start(ZONE, request_id) == await compute.start(ZONE, request_id)


async def test_metadata_is_merged_and_what_others_wrote_stays(box: CloudBox, compute: ComputeEngine) -> None:
    box.machine.metadata.update({"ssh-keys": "theirs", "auth_user": "me", "domain_name": "old"})
    await compute.set_metadata(ZONE, new_id(), {"domain_name": "new", "auth_user": "", "auth_pass": "", "a": "1"})
    box.advance(60)
    assert (await look(compute)).metadata == {"ssh-keys": "theirs", "domain_name": "new", "a": "1"}


async def test_metadata_that_is_right_already_costs_no_call(box: CloudBox, compute: ComputeEngine) -> None:
    box.machine.metadata["a"] = "1"
    assert await compute.set_metadata(ZONE, new_id(), {"a": "1", "auth_user": ""}) is None
    assert compute.calls == {"get": 1}


def meddled(others: Callable[[], None], *, times: int) -> Callable[[ASGIApp], ASGIApp]:
    """Let `others` change the machine between our read and our write, that many times."""
    left = times

    def wrap(app: ASGIApp) -> ASGIApp:
        async def between(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal left
            if scope.get("path", "").endswith("/setMetadata") and left > 0:
                left -= 1
                others()
            await app(scope, receive, send)

        return between

    return wrap


@pytest.mark.parametrize(("times", "survives"), [(1, True), (3, True), (4, False)])
async def test_a_change_by_others_at_the_same_moment_survives_with_ours(times: int, *, survives: bool) -> None:
    def others() -> None:
        theirs = box.machine.metadata
        theirs["count"] = str(int(theirs.get("count", "0")) + 1)

    with CloudBox(manual=True, middleware=meddled(others, times=times)) as box:
        compute = engine(box.url)
        if survives:
            assert await compute.set_metadata(ZONE, new_id(), {"a": "1"})
            box.advance(60)
            assert (await look(compute)).metadata == {"a": "1", "count": str(times)}
        else:
            with pytest.raises(CloudError) as caught:
                await compute.set_metadata(ZONE, new_id(), {"a": "1"})
            assert (caught.value.fault.code, bool(caught.value.fault.retry)) == ("changed-meanwhile", True)
        await compute.close()


def instance(**more: Any) -> dict[str, Any]:
    return {"name": "comfyui-gpu", "status": "TERMINATED", **more}


async def written(before: dict[str, Any], request_ids: list[str], call: str) -> list[Request]:
    """Return the POSTs of one call made under each of these request ids."""

    def reply(request: Request) -> bytes:
        return answer(200, before if request.method == "GET" else {"name": "op-1", "status": "RUNNING"})

    async with wire(reply) as google:
        compute = engine(google.url)
        for request_id in request_ids:
            if call == "metadata":
                await compute.set_metadata(ZONE, request_id, {"b": "2"})
            else:
                await compute.set_scheduling(ZONE, request_id, DAY)
        await compute.close()
    return [request for request in google.requests if request.method == "POST"]


async def test_a_key_without_a_value_stays_one() -> None:
    before = instance(metadata={"fingerprint": "Zm9v", "items": [{"key": "flag"}, {"key": "a", "value": "1"}]})
    post = (await written(before, [new_id()], "metadata"))[0]
    assert json.loads(post.body) == {
        "fingerprint": "Zm9v",
        "items": [{"key": "flag"}, {"key": "a", "value": "1"}, {"key": "b", "value": "2"}],
    }


async def test_the_same_body_has_the_same_request_id_and_another_body_another() -> None:
    def first(fingerprint: str) -> dict[str, Any]:
        return instance(metadata={"fingerprint": fingerprint, "items": []})

    attempt = new_id()
    once, again = await written(first("Zm9v"), [attempt, attempt], "metadata")
    assert once.path == again.path
    assert "requestId=" in once.path
    (after_others,) = await written(first("YmFy"), [attempt], "metadata")
    (other_attempt,) = await written(first("Zm9v"), [new_id()], "metadata")
    assert len({once.path, after_others.path, other_attempt.path}) == 3


async def test_the_whole_scheduling_is_sent_again_with_our_guard() -> None:
    before = instance(
        scheduling={
            "onHostMaintenance": "TERMINATE",
            "automaticRestart": False,
            "provisioningModel": "SPOT",
            "preemptible": True,
            "instanceTerminationAction": "DELETE",
            "terminationTime": "2026-12-01T00:00:00Z",
            "nodeAffinities": [{"key": "k", "operator": "IN", "values": ["v"]}],
        }
    )
    (post,) = await written(before, [new_id()], "scheduling")
    assert json.loads(post.body) == {
        "onHostMaintenance": "TERMINATE",
        "automaticRestart": False,
        "provisioningModel": "SPOT",
        "preemptible": True,
        "instanceTerminationAction": "STOP",
        "maxRunDuration": {"seconds": "36000"},
        "nodeAffinities": [{"key": "k", "operator": "IN", "values": ["v"]}],
    }


async def test_scheduling_that_is_right_already_costs_no_call(box: CloudBox, compute: ComputeEngine) -> None:
    await compute.set_scheduling(ZONE, new_id(), DAY)
    box.advance(60)
    assert await compute.set_scheduling(ZONE, new_id(), DAY) is None
    assert compute.calls == {"get": 2, "setScheduling": 1}


async def test_scheduling_is_left_alone_while_the_machine_is_on(box: CloudBox, compute: ComputeEngine) -> None:
    await compute.start(ZONE, new_id())
    box.advance(300)
    with pytest.raises(CloudError) as caught:
        await compute.set_scheduling(ZONE, new_id(), DAY)
    assert caught.value.fault.code == "not-off"
    assert compute.calls["setScheduling"] == 0


async def test_a_missing_machine_is_an_answer_but_a_missing_zone_or_project_is_a_fault(box: CloudBox) -> None:
    gone = engine(box.url, instance="other")
    assert await gone.look(ZONE) == MachineMissing(at=ASKED)
    with pytest.raises(CloudError) as caught:
        await gone.look("mars-1")
    assert caught.value.fault.code == "place-not-found"
    await gone.close()
    elsewhere = engine(box.url, project="other-project")
    with pytest.raises(CloudError) as caught:
        await elsewhere.look(ZONE)
    assert caught.value.fault.code == "place-not-found"
    await elsewhere.close()


async def test_guest_attributes_are_empty_until_allowed_and_written(box: CloudBox, compute: ComputeEngine) -> None:
    assert await compute.guest_attributes(ZONE) == {}
    await compute.set_metadata(ZONE, new_id(), {"enable-guest-attributes": "TRUE"})
    box.advance(60)
    assert await compute.guest_attributes(ZONE) == {}
    box.machine.guest_attributes.update({"comfyweb": {"phase": "{}"}, "other": {"phase": "theirs"}})
    assert await compute.guest_attributes(ZONE) == {"phase": "{}"}


async def test_guest_attributes_of_a_missing_machine_are_a_fault(box: CloudBox) -> None:
    gone = engine(box.url, instance="other")
    with pytest.raises(CloudError) as caught:
        await gone.guest_attributes(ZONE)
    assert caught.value.fault.code == "not-found"
    await gone.close()


async def test_the_permissions_that_are_missing_are_listed(box: CloudBox, compute: ComputeEngine) -> None:
    assert await compute.missing_permissions(ZONE) == ()
    box.fault("permission", verb="setScheduling", times=None)
    box.fault("permission", verb="start", times=None)
    missing = await compute.missing_permissions(ZONE)
    assert missing == ("compute.instances.start", "compute.instances.setScheduling")
    assert set(missing) <= set(PERMISSIONS)


async def test_whether_operations_can_be_read_is_found_out_without_one(box: CloudBox, compute: ComputeEngine) -> None:
    assert await compute.may_read_operations(ZONE)
    box.fault("permission", verb="operations.get", times=None)
    assert not await compute.may_read_operations(ZONE)


async def test_whether_it_may_act_for_an_account_is_asked_of_iam(box: CloudBox, compute: ComputeEngine) -> None:
    account = (await look(compute)).service_account
    assert await compute.may_act_as(account)
    box.fault("act-as", times=None)
    assert not await compute.may_act_as(account)
    with pytest.raises(CloudError):
        await compute.may_act_as("nobody@demo-project.iam.gserviceaccount.com")


async def test_many_calls_at_once_all_come_back(compute: ComputeEngine) -> None:
    seen = await asyncio.gather(*(look(compute) for _ in range(50)))
    assert {machine.status for machine in seen} == {"TERMINATED"}
    assert compute.calls["get"] == 50


async def test_calls_are_counted_by_how_they_ended(box: CloudBox, compute: ComputeEngine) -> None:
    await look(compute)
    box.fault("unavailable", verb="get")
    with pytest.raises(CloudError):
        await compute.look(ZONE)
    box.fault("permission", verb="setMetadata")
    with pytest.raises(CloudError):
        await compute.set_metadata(ZONE, new_id(), {"a": "1"})
    assert compute.outcomes == {("get", "ok"): 2, ("get", "unavailable"): 1, ("setMetadata", "permission"): 1}
    assert compute.calls == {"get": 3, "setMetadata": 1}
