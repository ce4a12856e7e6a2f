"""Compute Engine, as the loop sees it: awaitable, bounded in time, and failing only with `CloudError`.

Google's client is blocking and slow to import, so that it lives in `google_calls` and every call runs in a small pool
of threads (its connection pool holds ten). A cancelled call is left behind; its thread ends by the call's own timeout.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from comfyweb.cloud.cloud_error import CloudError, OperationSeen
from comfyweb.machine.checkup import ACT_AS
from comfyweb.machine.faults import named
from comfyweb.machine.firewall import Firewall
from comfyweb.machine.model import MachineMissing, MachineSeen, Quota

if TYPE_CHECKING:
    from comfyweb.cloud.google_calls import GoogleCalls

T = TypeVar("T")
May = Callable[[], None]
"""Raises Withheld where a change may no longer be sent."""

# The least that comfyweb needs. The last two lie on other resources than the machine, where it can't be asked for them:
# reading operations is a permission of the project, acting for the machine's service account one of that account.
PERMISSIONS = (
    "compute.instances.get",
    "compute.instances.start",
    "compute.instances.stop",
    "compute.instances.setMetadata",
    "compute.instances.setScheduling",
    "compute.instances.getGuestAttributes",
    "compute.zoneOperations.get",
    ACT_AS,
)
OPERATIONS = "compute.zoneOperations.get"
_NO_OPERATION = "comfyweb-asks-whether-it-may"
_ON_THE_MACHINE = tuple(permission for permission in PERMISSIONS if permission.startswith("compute.instances."))

_THREADS = 8
TIMEOUT_SECONDS = 15.0
# A call with all it may entail (importing the client, a new token, reading metadata anew) takes no longer than this.
WITHIN_SECONDS = 60.0
_CREDENTIALS = frozenset({"credentials-missing", "credentials-refused"})


class Withheld(Exception):
    """What was to be changed no longer may be, by `may_change`: nothing was sent."""


class ComputeEngine:
    """One machine at Compute Engine. Every method raises `CloudError` and nothing else.

    But for changes: `may_change` is asked right before each leaves, in the thread that sends it and as it was when the
    change was asked for, and may raise Withheld.

    `endpoint` is another Compute Engine than Google's; on loopback by http (the demo) no credentials are sent unless
    `credentials_file` is given. One HTTP call may take `timeout_seconds`. `calls` counts those made since the
    beginning, by Compute Engine's name of the method; `outcomes` also by how they ended, `ok` or a fault's code.
    """

    def __init__(
        self,
        *,
        project: str,
        instance: str,
        endpoint: str | None,
        credentials_file: Path | None,
        now: Callable[[], datetime],
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self.calls: Counter[str] = Counter()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.may_change: May = lambda: None
        self._project = project
        self._instance = instance
        self._endpoint = endpoint
        self._credentials_file = credentials_file
        self._now = now
        self._timeout_seconds = timeout_seconds
        self._pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="compute-engine")
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._google: GoogleCalls | None = None

    async def look(self, zone: str) -> MachineSeen | MachineMissing:
        """Read the machine. `at` is when this was called, so that nothing in the answer is older than it says.

        Not when the question was sent: a thread, or the client, may have come late, and whoever called measures from
        now on.
        """
        asked = self._now()
        return await self._run(lambda google: google.look(zone, asked))

    async def start(self, zone: str, request_id: str) -> str:
        """Start the machine and return the operation's name. The same `request_id` starts it once."""
        return await self._change(lambda google, may: google.start(zone, request_id, may))

    async def stop(self, zone: str, request_id: str, *, force: bool = False) -> str:
        """Stop the machine and return the operation's name. The same `request_id` stops it once.

        `force` cuts short a graceful shutdown that Compute Engine grants its guest (`noGracefulShutdown`).
        """
        return await self._change(lambda google, may: google.stop(zone, request_id, may, force=force))

    async def set_metadata(self, zone: str, request_id: str, changes: Mapping[str, str]) -> str | None:
        """Merge `changes` into the machine's metadata; an empty value deletes the key, all other keys stay.

        Returns the operation's name, or None (and sends nothing) when there is nothing to change. What others write at
        the same moment survives: the metadata is read anew, four times at most, then `changed-meanwhile` is raised.
        """
        return await self._change(lambda google, may: google.set_metadata(zone, request_id, may, changes))

    async def set_scheduling(self, zone: str, request_id: str, max_run: timedelta) -> str | None:
        """Have Compute Engine stop the machine `max_run` after each start, whatever becomes of us.

        Returns the operation's name, or None (and sends nothing) when it is so already. Works only while the machine is
        off; otherwise `not-off` is raised.
        """
        return await self._change(lambda google, may: google.set_scheduling(zone, request_id, may, max_run))

    async def operation(self, zone: str, name: str) -> OperationSeen:
        """Read what became of a call."""
        return await self._run(lambda google: google.operation(zone, name))

    async def guest_attributes(self, zone: str) -> dict[str, str]:
        """Read what the host wrote for us by Google's own channel; empty when there is nothing yet, or it is closed."""
        return await self._run(lambda google: google.guest_attributes(zone))

    async def missing_permissions(self, zone: str) -> tuple[str, ...]:
        """Return which of `PERMISSIONS` we lack, of those that can be asked for on the machine itself."""
        granted = await self._run(lambda google: google.granted(zone, _ON_THE_MACHINE))
        return tuple(permission for permission in _ON_THE_MACHINE if permission not in granted)

    async def may_read_operations(self, zone: str) -> bool:
        """Tell whether we have `OPERATIONS`, by asking for an operation that doesn't exist.

        Who may not is told so, and who may hears that there is none.
        """
        try:
            await self.operation(zone, _NO_OPERATION)
        except CloudError as error:
            if error.fault.code != "permission":
                raise
            return False
        return True

    async def may_act_as(self, account: str) -> bool:
        """Tell whether we have `ACT_AS` on a service account, given by its email.

        IAM is asked, another API of Google's: `api-disabled` is raised when that one isn't enabled in our project.
        """
        return await self._run(lambda google: google.survey.may_act_as(account))

    async def quotas(self, zone: str) -> tuple[Quota, ...]:
        """Read the limits of the zone's region. Needs compute.regions.get, which running the machine doesn't."""
        return await self._run(lambda google: google.survey.quotas(zone))

    async def project_quotas(self) -> tuple[Quota, ...]:
        """Read the limits of the project in all regions together. Needs compute.projects.get, as above."""
        return await self._run(lambda google: google.survey.project_quotas())

    async def is_reserved(self, zone: str, address: str) -> bool:
        """Tell whether an external address is reserved in the zone's region. Needs compute.addresses.list, as above."""
        return await self._run(lambda google: google.survey.is_reserved(zone, address))

    async def firewall(self, zone: str) -> Firewall:
        """Read what Compute Engine's firewall applies to the machine.

        Needs compute.instances.getEffectiveFirewalls, as above.
        """
        return await self._run(lambda google: google.survey.firewall(zone))

    async def close(self) -> None:
        """Take no more calls and close the connections. Calls under way end by their own timeouts."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            google, self._google = self._google, None
        if google is not None:
            google.close()

    async def _change(self, call: "Callable[[GoogleCalls, May], T]") -> T:
        may = self.may_change
        return await self._run(lambda google: call(google, may))

    async def _run(self, call: "Callable[[GoogleCalls], T]") -> T:
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, self._blocking, call)
        except RuntimeError as error:
            raise CloudError(named("network"), "the client of Compute Engine is closed") from error
        try:
            async with asyncio.timeout(WITHIN_SECONDS):
                return await future
        except TimeoutError as error:
            raise CloudError(named("network-timeout"), f"no answer within {WITHIN_SECONDS:g} s") from error

    def _blocking(self, call: "Callable[[GoogleCalls], T]") -> T:
        """Make one call, in a thread of the pool."""
        from comfyweb.cloud.google_errors import cloud_error  # noqa: PLC0415 - a second and 150 MB, only in a thread

        google = None
        try:
            google = self._connected()
            return call(google)
        except Withheld:
            raise
        except Exception as error:  # Whatever the client makes of a stranger's answer is a fault.
            failure = cloud_error(error)
            if failure.fault.code in _CREDENTIALS:
                self._forget(google)
            raise failure from error

    def _connected(self) -> "GoogleCalls":
        from comfyweb.cloud.google_calls import GoogleCalls  # noqa: PLC0415 - as above

        with self._lock:
            if self._google is None:
                self._google = GoogleCalls(
                    project=self._project,
                    instance=self._instance,
                    endpoint=self._endpoint,
                    credentials_file=self._credentials_file,
                    count=self._count,
                    timeout_seconds=self._timeout_seconds,
                )
            return self._google

    def _forget(self, google: "GoogleCalls | None") -> None:
        """Read the credentials anew at the next call: somebody may have put the right key in place."""
        with self._lock:
            if self._google is google:
                self._google = None

    def _count(self, method: str, outcome: str) -> None:
        with self._counting:
            self.calls[method] += 1
            self.outcomes[method, outcome] += 1
