"""What is read of Google beside the machine, by `python -m comfyweb doctor` alone: limits, addresses, firewall, IAM.

Blocking, like `google_calls`, which brings credentials; the clients are made when they are first needed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar, cast
from urllib.parse import quote

import requests
from google.api_core.client_options import ClientOptions
from google.api_core.exceptions import from_http_response  # pyright: ignore[reportUnknownVariableType]
from google.auth.credentials import Credentials, Scoped
from google.auth.transport.requests import AuthorizedSession
from google.cloud import compute_v1
from google.oauth2 import service_account

from comfyweb.cloud.cloud_error import CloudError
from comfyweb.machine.checkup import ACT_AS
from comfyweb.machine.faults import named
from comfyweb.machine.firewall import EVERYWHERE, Firewall, Rule, Traffic
from comfyweb.machine.model import Quota

IAM = "https://iam.googleapis.com"
# https://cloud.google.com/iam/docs/reference/rest/v1/projects.serviceAccounts/testIamPermissions
_IAM_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_INTERFACE = "nic0"  # Compute Engine's name for a machine's first network card
_INGRESS = "INGRESS"

Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)


class _Call(Protocol[Answer_co]):
    def __call__(self, request: Mapping[str, object], *, retry: None, timeout: float) -> Answer_co: ...


class _Ask(Protocol):
    def __call__(self, method: str, call: _Call[Answer], request: Mapping[str, object]) -> Answer: ...


class _WithScopes(Protocol):
    def with_scopes(self, scopes: Sequence[str]) -> Credentials: ...


class _ByItself(Protocol):
    def with_always_use_jwt_access(self, *, always_use_jwt_access: bool) -> Credentials: ...


class _Signing(Protocol):
    def __call__(self, credentials: Credentials) -> requests.Session: ...


class _Quota(Protocol):
    metric: str
    limit: float
    usage: float


class _Limited(Protocol):
    quotas: Sequence[_Quota]


class _Traffic(Protocol):
    I_p_protocol: str
    ports: Sequence[str]


class _Rule(Protocol):
    name: str
    priority: int
    direction: str
    disabled: bool
    allowed: Sequence[_Traffic]
    denied: Sequence[_Traffic]
    source_ranges: Sequence[str]
    source_tags: Sequence[str]
    source_service_accounts: Sequence[str]


class _Effective(Protocol):
    firewalls: Sequence[_Rule]
    firewall_policys: Sequence[object]


class Survey:
    """Reads one project. Raises what Google's client raises."""

    def __init__(
        self,
        credentials: Credentials,
        options: ClientOptions | None,
        *,
        project: str,
        instance: str,
        iam: str,
        ask: "_Ask",
    ) -> None:
        self._credentials = credentials
        self._options = options
        self._project = project
        self._instance = instance
        self._iam = iam
        self._ask_google = ask

    def quotas(self, zone: str) -> tuple[Quota, ...]:
        """Return the limits of the zone's region."""
        client = compute_v1.RegionsClient(credentials=self._credentials, client_options=self._options)
        call = cast("_Call[_Limited]", client.get)
        return _quotas(self._ask("regions.get", call, region=_region(zone)))

    def project_quotas(self) -> tuple[Quota, ...]:
        """Return the limits of the project in all regions together."""
        client = compute_v1.ProjectsClient(credentials=self._credentials, client_options=self._options)
        return _quotas(self._ask("projects.get", cast("_Call[_Limited]", client.get)))

    def is_reserved(self, zone: str, address: str) -> bool:
        """Tell whether an external address is reserved in the zone's region."""
        client = compute_v1.AddressesClient(credentials=self._credentials, client_options=self._options)
        call = cast("_Call[Iterable[object]]", client.list)
        found = self._ask("addresses.list", call, region=_region(zone), filter=f'address = "{address}"')
        return next(iter(found), None) is not None

    def firewall(self, zone: str) -> Firewall:
        """Return what applies to the machine's first network card."""
        client = compute_v1.InstancesClient(credentials=self._credentials, client_options=self._options)
        call = cast("_Call[_Effective]", client.get_effective_firewalls)
        where = {"zone": zone, "instance": self._instance, "network_interface": _INTERFACE}
        said = self._ask("getEffectiveFirewalls", call, **where)
        rules = (_rule(each) for each in said.firewalls if each.direction == _INGRESS and not each.disabled)
        return Firewall(rules=tuple(rules), policies=bool(said.firewall_policys))

    def may_act_as(self, account: str) -> bool:
        """Tell whether we may act for a service account. It may be of another project."""
        call = cast("_Call[Sequence[str]]", self._granted_on_account)
        return ACT_AS in self._ask_google("serviceAccounts.testIamPermissions", call, {"account": account})

    def _granted_on_account(
        self,
        request: Mapping[str, str],
        *,
        retry: None,  # noqa: ARG002 - as Google's client has it
        timeout: float,
    ) -> Sequence[str]:
        """Do what Google's client for IAM would, which is not worth its 10 MB for one question."""
        with _session(self._credentials) as session:
            answer = session.post(
                f"{self._iam}/v1/projects/-/serviceAccounts/{quote(request['account'])}:testIamPermissions",
                json={"permissions": [ACT_AS]},
                timeout=timeout,
            )
        if not answer.ok:
            raise cast("Callable[[requests.Response], Exception]", from_http_response)(answer)
        said = cast("object", answer.json())
        if not isinstance(said, dict):
            raise CloudError(named("bad-answer"), "an answer to serviceAccounts.testIamPermissions that is no object")
        return cast("Mapping[str, Sequence[str]]", said).get("permissions", ())

    def _ask(self, method: str, call: _Call[Answer], **where: str) -> Answer:
        return self._ask_google(method, call, {"project": self._project, **where})


def _session(credentials: Credentials) -> requests.Session:
    """Return one that signs what it sends. A user's own credentials and the demo's have no scopes to be given."""
    if isinstance(credentials, Scoped):
        credentials = cast("_WithScopes", credentials).with_scopes(_IAM_SCOPES)
    if isinstance(credentials, service_account.Credentials):  # As Google's client does: no other server is asked.
        credentials = cast("_ByItself", credentials).with_always_use_jwt_access(always_use_jwt_access=True)
    return cast("_Signing", AuthorizedSession)(credentials)


def _region(zone: str) -> str:
    return zone.rpartition("-")[0]


def _quotas(limited: _Limited) -> tuple[Quota, ...]:
    return tuple(Quota(metric=each.metric, limit=each.limit, usage=each.usage) for each in limited.quotas)


def _rule(said: _Rule) -> Rule:
    inside = said.source_tags or said.source_service_accounts
    return Rule(
        name=said.name,
        priority=said.priority,
        allows=bool(said.allowed),
        traffic=tuple(
            Traffic(protocol=each.I_p_protocol.lower(), ports=tuple(each.ports))
            for each in (said.allowed or said.denied)
        ),
        sources=tuple(said.source_ranges) or (() if inside else (EVERYWHERE,)),
    )
