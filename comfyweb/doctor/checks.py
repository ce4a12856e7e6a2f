"""Looks at everything at once. Each look ends by its own time, and what it brings is judged in `machine/checkup*`."""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from argon2 import extract_parameters
from argon2.exceptions import InvalidHashError

from comfyweb.cloud.answering import NoAnswer, certificate_at, script_at, time_at
from comfyweb.cloud.cloud_error import CloudError
from comfyweb.cloud.compute import OPERATIONS, PERMISSIONS, ComputeEngine
from comfyweb.cloud.names import Names
from comfyweb.control import storage, terms
from comfyweb.machine import checkup, checkup_here
from comfyweb.machine.checkup import Finding, not_checked, ok
from comfyweb.machine.decide import UP
from comfyweb.machine.model import Fault, MachineMissing, MachineSeen
from comfyweb.machine.preparation import foreign_script
from comfyweb.machine.reach import hidden
from comfyweb.settings import SECRETS, Settings, SettingsError, load
from vm_setup import bundle
from vm_setup.host import cloudflare
from vm_setup.host.bundle import version_of

# One HTTP call to Google; a look with a new token and the import of its client; and any check in all.
CALL_SECONDS, LOOK_SECONDS, CHECK_SECONDS = 6.0, 20.0, 25.0
OF_COMPUTE_ENGINE = tuple(permission for permission in PERMISSIONS if permission != checkup.ACT_AS)
GOOGLE = "https://compute.googleapis.com"
HTTP, HTTPS = 80, 443
# OWASP's "Password Storage Cheat Sheet": at least 19 MiB and 2 passes, or as much work by other numbers.
LEAST_KIB_PASSES = 19_456 * 2

NEEDS_SETTINGS = "The settings have to be right first."

Check = Callable[[], Awaitable[list[Finding]]]


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at the machine brought: it, or the fault."""

    machine: MachineSeen | MachineMissing | None = None
    fault: Fault | None = None


async def examine(environ: Mapping[str, str], dotenv: Path | None) -> list[Finding]:
    """Return what was found, in the order in which one would mend it."""
    try:
        settings = load(environ, dotenv)
    except SettingsError as error:
        wrong = [Finding(check="settings", state=checkup.State.FAILED, words=words) for words in error.problems]
        return [*wrong, not_checked("everything else", NEEDS_SETTINGS)]
    return await Examination(settings, environ, dotenv).findings()


class Examination:
    """One run over all checks. `names` looks up names; the computer's own name servers unless given."""

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], dotenv: Path | None, names: Names | None = None
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._dotenv = dotenv
        self._names = names or Names(cloudflare.SHIPPED)
        self._place = terms.place(settings)
        self._compute = ComputeEngine(
            project=settings.gcp_project,
            instance=settings.gce_instance,
            endpoint=settings.compute_endpoint,
            credentials_file=settings.google_application_credentials,
            now=lambda: datetime.now(UTC),
            timeout_seconds=CALL_SECONDS,
        )
        self._look: asyncio.Task[Look] | None = None

    async def findings(self) -> list[Finding]:
        """Make all looks side by side."""
        self._look = asyncio.create_task(self._look_at_machine())
        checks: dict[str, Check] = {
            "settings": self._of_settings,
            "secrets": self._secrets,
            "database": self._database,
            "clock": self._clock,
            "google": self._google,
            "permissions": self._permissions,
            checkup.ACT_AS: self._act_as,
            "machine": self._machine,
            "gpu-quota": self._gpu_quota,
            "gpu-quota-all-regions": self._gpu_quota_everywhere,
            "firewall": self._firewall,
            "external-address": self._static_address,
            "name": self._name,
            "certificate": self._certificate,
            "framing": self._framing,
            "host-bundle": self._bundle,
        }
        try:
            found = await asyncio.gather(*(_in_time(name, check) for name, check in checks.items()))
        finally:
            self._look.cancel()
            await asyncio.gather(self._look, self._compute.close(), self._names.close(), return_exceptions=True)
        return [finding for each in found for finding in each]

    # -- here ------------------------------------------------------------------------------------------------------

    async def _of_settings(self) -> list[Finding]:
        told_elsewhere = self._settings.framing_doubt
        doubts = [words for words in self._settings.warnings if words != told_elsewhere]
        if not doubts:
            return [ok("settings", "All are right.")]
        return [Finding(check="settings", state=checkup.State.WARNING, words=words) for words in doubts]

    async def _secrets(self) -> list[Finding]:
        named = [self._environ[f"{name}_FILE"] for name in sorted(SECRETS) if self._environ.get(f"{name}_FILE")]
        files = [Path(name.strip()) for name in named]
        files += [path for path in (self._dotenv, self._settings.google_application_credentials) if path]
        # A container has no other users, and mounts secrets with modes of its own.
        loose = [] if self._environ.get("container") else [str(file) for file in files if _read_by_others(file)]
        weak = _weak_hash(self._settings.auth_password.get_secret_value())
        signing = len(self._settings.jwt_secret)
        return [checkup_here.secrets(weak_hash=weak, signing=signing, loose_files=loose)]

    async def _database(self) -> list[Finding]:
        found = await asyncio.to_thread(storage.examine, self._settings.database_url.get_secret_value())
        return [checkup_here.database(found.trouble, found.free_bytes)]

    async def _framing(self) -> list[Finding]:
        words = self._place.embed_words or self._settings.framing_doubt
        return [checkup_here.framing(words, self._settings.public_url, self._place.comfyui_url)]

    async def _bundle(self) -> list[Finding]:
        try:
            script = await asyncio.to_thread(bundle.script)
        except (OSError, ValueError) as error:
            return [Finding(check="host-bundle", state=checkup.State.FAILED, words=str(error))]
        stored: str | None = None
        if url := self._settings.startup_script_url:
            try:
                stored = version_of(await script_at(url))
            except NoAnswer as error:
                todo = f"Look yourself: gcloud storage cat {url} | head -3" if url.startswith("gs://") else ""
                return [not_checked("host-bundle", f"STARTUP_SCRIPT_URL: {error}", todo)]
        return [checkup_here.bundle(version_of(script), len(script), bundle.LONGEST_BYTES, stored)]

    # -- Google ----------------------------------------------------------------------------------------------------

    async def _look_at_machine(self) -> Look:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return Look(machine=await self._compute.look(self._place.zone))
        except CloudError as error:
            return Look(fault=error.fault)
        except TimeoutError:
            return Look(fault=checkup.named("network-timeout"))

    async def _seen(self) -> Look:
        if self._look is None:
            raise RuntimeError("nobody has begun to look")
        return await asyncio.shield(self._look)

    async def _up_or_down(self) -> MachineSeen | None:
        machine = (await self._seen()).machine
        return machine if isinstance(machine, MachineSeen) else None

    async def _clock(self) -> list[Finding]:
        try:
            googles = await time_at(self._settings.compute_endpoint or GOOGLE)
        except NoAnswer as error:
            return [not_checked("clock", str(error))]
        return [checkup.clock(datetime.now(UTC), googles)]

    async def _google(self) -> list[Finding]:
        fault = (await self._seen()).fault
        return [checkup.credentials(fault), checkup.api(fault)]

    async def _permissions(self) -> list[Finding]:
        project = self._settings.gcp_project
        look = await self._seen()
        if isinstance(look.machine, MachineMissing):
            return checkup.permissions(OF_COMPUTE_ENGINE, None, checkup.named("not-found"), project)
        try:
            missing, may_read = await asyncio.gather(
                self._compute.missing_permissions(self._place.zone),
                self._compute.may_read_operations(self._place.zone),
            )
        except CloudError as error:
            return checkup.permissions(OF_COMPUTE_ENGINE, None, error.fault, project)
        return checkup.permissions(OF_COMPUTE_ENGINE, [*missing, *(() if may_read else (OPERATIONS,))], None, project)

    async def _act_as(self) -> list[Finding]:
        machine = await self._up_or_down()
        may, fault = None, None
        if machine is not None and machine.service_account:
            try:
                may = await self._compute.may_act_as(machine.service_account)
            except CloudError as error:
                fault = error.fault
        return [checkup.act_as(machine, may=may, fault=fault)]

    async def _machine(self) -> list[Finding]:
        look = await self._seen()
        found = checkup.machine(look.machine, look.fault, self._settings.gce_instance)
        if isinstance(look.machine, MachineSeen):
            wanted = terms.policy(self._settings, keys="").metadata
            found.append(checkup.start_up_script(foreign=foreign_script(wanted, look.machine.metadata)))
        return found

    async def _gpu_quota(self) -> list[Finding]:
        machine = await self._up_or_down()
        if machine is None or not machine.accelerators:
            return [not_checked("gpu-quota", "There is no machine with a GPU to ask for.")]
        try:
            return [checkup.gpu_quota(machine, await self._compute.quotas(machine.zone))]
        except CloudError as error:
            return [checkup.unread("gpu-quota", error.fault)]

    async def _gpu_quota_everywhere(self) -> list[Finding]:
        machine = await self._up_or_down()
        if machine is None or not machine.accelerators:
            return [not_checked("gpu-quota-all-regions", "There is no machine with a GPU to ask for.")]
        try:
            return [checkup.gpu_quota_everywhere(machine, await self._compute.project_quotas())]
        except CloudError as error:
            return [checkup.unread("gpu-quota-all-regions", error.fault)]

    async def _firewall(self) -> list[Finding]:
        if self._settings.comfyui_url:
            return [not_checked("firewall", "COMFYUI_URL leads to ComfyUI, by a way that Compute Engine may not see.")]
        machine = await self._up_or_down()
        if machine is None:
            return [not_checked("firewall", "The machine could not be looked at.")]
        try:
            found = await self._compute.firewall(machine.zone)
        except CloudError as error:
            return [checkup.unread("firewall", error.fault)]
        return [checkup.firewall(found, (HTTP, HTTPS) if self._settings.comfyui_domain else (HTTP,))]

    async def _static_address(self) -> list[Finding]:
        machine = await self._up_or_down()
        if machine is None:
            return [not_checked("external-address", "The machine could not be looked at.")]
        try:
            reserved = await self._keeps_address(machine)
        except CloudError as error:
            return [checkup.unread("external-address", error.fault)]
        name, instance = self._place.name, self._settings.gce_instance
        return [checkup.static_address(machine, reserved=reserved, name=name, instance=instance)]

    async def _keeps_address(self, machine: MachineSeen) -> bool:
        """Tell whether the machine's address is its own also when it is off. Raises CloudError."""
        if not machine.external_ip:
            return False
        return await self._compute.is_reserved(machine.zone, machine.external_ip)

    # -- the way to ComfyUI ----------------------------------------------------------------------------------------

    async def _name(self) -> list[Finding]:
        if not self._place.name:
            return [not_checked("name", "ComfyUI has no name of its own (COMFYUI_DOMAIN).")]
        seen = await self._names.look(self._place.name)
        machine = await self._up_or_down()
        try:
            keeps = await self._keeps_address(machine) if machine else False
        except CloudError:
            keeps = False
        by_cloudflare = self._place.cloudflare
        return [checkup_here.name(seen, machine, self._place.proxies, origin_certificate=by_cloudflare, keeps=keeps)]

    async def _certificate(self) -> list[Finding]:
        name = self._place.name
        if not name:
            return [not_checked("certificate", "ComfyUI has no name of its own (COMFYUI_DOMAIN).")]
        machine = await self._up_or_down()
        on = machine is not None and machine.status in UP
        if not on and not hidden((await self._names.look(name)).addresses or (), self._place.proxies):
            if machine is None:
                return [not_checked("certificate", "The machine could not be looked at.")]
            return [not_checked("certificate", "The machine is not on.", "Start it, and look again.")]
        try:
            return [checkup_here.certificate(await certificate_at(name), name, datetime.now(UTC))]
        except NoAnswer as error:
            return [not_checked("certificate", str(error), "See the checks of name and firewall.")]


async def _in_time(name: str, check: Check) -> list[Finding]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except TimeoutError:
        return [not_checked(name, f"It took longer than {CHECK_SECONDS:g} s.")]


def _read_by_others(file: Path) -> bool:
    try:
        return os.name == "posix" and bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False


def _weak_hash(password: str) -> bool:
    try:
        cost = extract_parameters(password)
    except InvalidHashError:
        return False
    return cost.memory_cost * cost.time_cost < LEAST_KIB_PASSES
