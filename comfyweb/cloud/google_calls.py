"""Blocking calls to Compute Engine by Google's own client.

Importing this module takes a second and 150 MB, so only `compute` does it, in a worker thread, once the app is up. Each
call has a timeout and no retries: the client's own could hold a thread for ten minutes, and the loop repeats what may
be repeated.
"""

import hashlib
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeVar, cast
from urllib.parse import urlsplit

import google.auth
import requests
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import compute_v1

from comfyweb.cloud.cloud_error import CloudError, OperationSeen
from comfyweb.cloud.compute import May
from comfyweb.cloud.google_errors import cloud_error, said, status
from comfyweb.cloud.google_reading import (
    GuestAttributes,
    Instance,
    Operation,
    Permissions,
    machine_seen,
    operation_fault,
    scheduling_seen,
    values,
)
from comfyweb.cloud.google_survey import IAM, Survey
from comfyweb.machine.faults import named
from comfyweb.machine.model import MachineMissing, MachineSeen
from comfyweb.machine.preparation import metadata_changes, needs_scheduling, run_seconds

NAMESPACE = "comfyweb"

_SCOPES = ("https://www.googleapis.com/auth/compute",)
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_METADATA_TRIES = 4
_NOT_FOUND = 404
_STALE_FINGERPRINT = 412
_WELL = "ok"
_OFF = frozenset({"TERMINATED", "STOPPED"})


Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)


class _Call(Protocol[Answer_co]):
    def __call__(self, request: Mapping[str, object], *, retry: None, timeout: float) -> Answer_co: ...


class _LoadFile(Protocol):
    def __call__(self, filename: str, *, scopes: tuple[str, ...]) -> tuple[Credentials, object]: ...


class _LoadDefault(Protocol):
    def __call__(self, *, scopes: tuple[str, ...]) -> tuple[Credentials, object]: ...


class _MessageType(Protocol):
    def to_json(self, instance: object) -> str: ...


class _Transport(Protocol):
    _session: requests.Session


class _Answer(threading.local):
    """The `Date` of the last answer in this thread; empty when there was none."""

    date = ""

    def read(self, response: requests.Response, **_how: object) -> None:
        self.date = response.headers.get("Date", "")


class GoogleCalls:
    """Everything comfyweb asks of Compute Engine, one machine, blocking. Raises what the client raises.

    `count` hears of each call when it has ended: Compute Engine's name of the method, and `ok` or a fault's code.
    """

    def __init__(
        self,
        *,
        project: str,
        instance: str,
        endpoint: str | None,
        credentials_file: Path | None,
        count: Callable[[str, str], None],
        timeout_seconds: float,
    ) -> None:
        credentials = _credentials(endpoint, credentials_file)
        options = ClientOptions(api_endpoint=endpoint) if endpoint else None
        instances = compute_v1.InstancesClient(credentials=credentials, client_options=options)
        operations = compute_v1.ZoneOperationsClient(credentials=credentials, client_options=options)
        self._close = (instances.transport.close, operations.transport.close)
        self._answer = _Answer()
        # The client hands out messages alone; the time at Google is in the answer's headers.
        session = cast("_Transport", instances.transport)._session  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        session.hooks["response"].append(self._answer.read)
        # The client's types are partly unknown: here they become ours, and nowhere else.
        self._get_instance = cast("_Call[Instance]", instances.get)
        self._get_operation = cast("_Call[Operation]", operations.get)
        self._get_guest_attributes = cast("_Call[GuestAttributes]", instances.get_guest_attributes)
        self._test_permissions = cast("_Call[Permissions]", instances.test_iam_permissions)
        self._verbs = {
            "start": cast("_Call[Operation]", instances.start_unary),
            "stop": cast("_Call[Operation]", instances.stop_unary),
            "setMetadata": cast("_Call[Operation]", instances.set_metadata_unary),
            "setScheduling": cast("_Call[Operation]", instances.set_scheduling_unary),
        }
        iam = endpoint if endpoint and _on_loopback(endpoint) else IAM
        self.survey = Survey(credentials, options, project=project, instance=instance, iam=iam, ask=self._ask)
        self._project = project
        self._instance = instance
        self._count = count
        self._timeout = timeout_seconds

    def close(self) -> None:
        """Close the connections."""
        for close in self._close:
            close()

    def look(self, zone: str, at: datetime) -> MachineSeen | MachineMissing:
        """Read the machine. Only a 404 about the machine itself says that it is missing."""
        try:
            return machine_seen(self._get(zone), zone, at, self._answer.date)
        except GoogleAPICallError as error:
            if status(error) == _NOT_FOUND and f"/instances/{self._instance}'" in said(error)[1]:
                return MachineMissing(at=at)
            raise

    def start(self, zone: str, request_id: str, may: May) -> str:
        """Start the machine; return the operation's name."""
        return self._call("start", zone, request_id, may)

    def stop(self, zone: str, request_id: str, may: May, *, force: bool = False) -> str:
        """Stop the machine; return the operation's name."""
        return self._call("stop", zone, request_id, may, **({"no_graceful_shutdown": True} if force else {}))

    def set_metadata(self, zone: str, request_id: str, may: May, wanted: Mapping[str, str]) -> str | None:
        """Merge `wanted` into the metadata as it is now; return None when it is there already.

        The fingerprint guards what others write meanwhile: when it is stale the metadata is read again.
        """
        for _ in range(_METADATA_TRIES - 1):
            try:
                return self._set_metadata_once(zone, request_id, may, wanted)
            except GoogleAPICallError as error:
                if status(error) != _STALE_FINGERPRINT:
                    raise
        return self._set_metadata_once(zone, request_id, may, wanted)

    def _set_metadata_once(self, zone: str, request_id: str, may: May, wanted: Mapping[str, str]) -> str | None:
        seen = self._get(zone).metadata
        changes = metadata_changes(values(seen.items), wanted)
        if not changes:
            return None
        kept = [item for item in seen.items if item.key not in changes]
        new = [compute_v1.Items(key=key, value=value) for key, value in changes.items() if value]
        body = compute_v1.Metadata(fingerprint=seen.fingerprint, items=kept + new)
        request_id = _id_for(request_id, body)
        return self._call("setMetadata", zone, request_id, may, metadata_resource=body)

    def set_scheduling(self, zone: str, request_id: str, may: May, max_run: timedelta) -> str | None:
        """Set `maxRunDuration` with STOP, all else in `scheduling` as it is; return None when it is there already.

        Compute Engine takes it only while the machine is off; how it refuses otherwise is not documented, so a machine
        that is on is told from the look just before.
        """
        instance = self._get(zone)
        if not needs_scheduling(scheduling_seen(instance.scheduling), max_run):
            return None
        if instance.status not in _OFF:
            raise CloudError(named("not-off"), f"setScheduling while {instance.status}")
        body = compute_v1.Scheduling(instance.scheduling)
        del body.termination_time  # It excludes maxRunDuration.
        body.max_run_duration = compute_v1.Duration(seconds=run_seconds(max_run))
        body.instance_termination_action = "STOP"
        request_id = _id_for(request_id, body)
        return self._call("setScheduling", zone, request_id, may, scheduling_resource=body)

    def operation(self, zone: str, name: str) -> OperationSeen:
        """Read an operation. One that Google has forgotten is done, with a fault that lets the loop go on."""
        request = {"project": self._project, "zone": zone, "operation": name}
        try:
            seen = self._ask("operation", self._get_operation, request)
        except GoogleAPICallError as error:
            if status(error) == _NOT_FOUND and f"/operations/{name}'" in said(error)[1]:
                return OperationSeen(done=True, fault=named("operation-forgotten"))
            raise
        done = seen.status == compute_v1.Operation.Status.DONE
        return OperationSeen(done=done, fault=operation_fault(seen) if done else None)

    def guest_attributes(self, zone: str) -> dict[str, str]:
        """Read what the host wrote in our namespace; nothing when it wrote nothing or may not write."""
        request = {**self._machine(zone), "query_path": f"{NAMESPACE}/"}
        try:
            answer = self._ask("getGuestAttributes", self._get_guest_attributes, request)
        except GoogleAPICallError as error:
            words = said(error)[1].lower()
            if "guest attribute" in words and (
                status(error) == _NOT_FOUND or "enabled" in words or "disabled" in words
            ):
                return {}
            raise
        return {item.key: item.value for item in answer.query_value.items if item.namespace == NAMESPACE}

    def granted(self, zone: str, permissions: tuple[str, ...]) -> frozenset[str]:
        """Return which of these permissions we have on the machine."""
        request = {
            "project": self._project,
            "zone": zone,
            "resource": self._instance,
            "test_permissions_request_resource": compute_v1.TestPermissionsRequest(permissions=permissions),
        }
        answer = self._ask("testIamPermissions", self._test_permissions, request)
        return frozenset(answer.permissions)

    def _get(self, zone: str) -> Instance:
        instance = self._ask("get", self._get_instance, self._machine(zone))
        if instance.name != self._instance or not instance.status:
            raise CloudError(named("bad-answer"), "an answer to instances.get that holds no such machine")
        return instance

    def _call(self, verb: str, zone: str, request_id: str, may: May, **body: object) -> str:
        request = {**self._machine(zone), "request_id": request_id, **body}
        may()
        operation = self._ask(verb, self._verbs[verb], request)
        if not operation.name:
            raise CloudError(named("bad-answer"), f"an answer to {verb} that names no operation")
        return operation.name

    def _ask(self, method: str, call: "_Call[Answer]", request: Mapping[str, object]) -> Answer:
        """Make a call, once, and count it by what came of it."""
        outcome = _WELL
        try:
            return call(request, retry=None, timeout=self._timeout)
        except Exception as error:
            outcome = cloud_error(error).fault.code
            raise
        finally:
            self._count(method, outcome)

    def _machine(self, zone: str) -> dict[str, str]:
        return {"project": self._project, "zone": zone, "instance": self._instance}


def _id_for(request_id: str, body: compute_v1.Metadata | compute_v1.Scheduling) -> str:
    """Return the `requestId` of one body under one attempt.

    Google answers a repeated `requestId` with the first operation, whatever the second body says. An attempt that is
    replayed after a crash, or sent again with a new fingerprint, reads the machine anew and may send another body: the
    same body gets the same id and happens once, another body gets another id and is not swallowed.
    """
    text = cast("_MessageType", type(body)).to_json(body)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{request_id}/{digest}"))


def _on_loopback(endpoint: str) -> bool:
    """Tell whether it is the demo, which is the whole cloud."""
    parts = urlsplit(endpoint)
    return parts.scheme == "http" and parts.hostname in _LOOPBACK


def _credentials(endpoint: str | None, key: Path | None) -> Credentials:
    """Return what to sign calls with: the key file, else nothing on loopback (the demo), else what the place gives."""
    if key is None and _on_loopback(endpoint or ""):
        return AnonymousCredentials()
    try:
        if key:  # Deprecated for files of strangers; this one is the operator's own, and may be of any type.
            found = cast("_LoadFile", google.auth.load_credentials_from_file)(str(key), scopes=_SCOPES)
        else:
            found = cast("_LoadDefault", google.auth.default)(scopes=_SCOPES)
    except GoogleAuthError:
        raise
    except Exception as error:  # A file that is no key makes the library stumble in many ways.
        raise CloudError(named("credentials-missing"), f"{type(error).__name__} while reading the key") from error
    return found[0]
