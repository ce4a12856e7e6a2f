"""One real machine and its cloud: what a test starts, looks at, and takes the electricity from."""

import asyncio
import contextlib
import http.client
import json
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Self

from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import compute_v1

from comfyweb.cloud.compute import ComputeEngine
from comfyweb.demo.model import Status
from tests.cloudbox import CloudBox
from tests.machines import leftovers, roots
from tests.machines.commands import CommandFailed, in_group, run
from tests.machines.disks import Disk
from tests.machines.network import Network
from tests.machines.nspawn import Nspawn
from tests.machines.systems import DEBIAN, System
from tests.machines.weather import Weather

PROJECT, ZONE, INSTANCE = "demo-project", "us-central1-a", "comfyui-gpu"
REGION, NIC, ACCESS = "us-central1", "nic0", "External NAT"
# Where the emulator answers on the loopback beyond the cable: for an app that runs there.
API_PORT = 9000
# The boot disk holds what differs from the golden root.
BOOT_DISK_SIZE, DATA_DISK_SIZE = "6G", "4G"
# Of a test, with whatever is to come in the end: on an idle computer it comes within seconds.
PATIENCE = 180.0


class TooLate(AssertionError):
    """What a test waited for did not come."""


class Machine:
    """A machine at an emulated Compute Engine of its own, TERMINATED at first, with a new boot disk and a blank disk.

    `system` is what it boots. `warm`: the packages that a host installs are in place. `egress`: it reaches the
    archives; otherwise nothing but its metadata server. `cloud` is the emulator, `weather` how its metadata server
    does, `data` the persistent disk.
    """

    def __init__(self, *, system: System = DEBIAN, warm: bool = True, egress: bool = False) -> None:
        root = roots.golden(system, warm=warm)
        self.system = system
        self.warm = warm
        self.name = leftovers.new_name()
        self.folder = leftovers.folder_of(self.name)
        self.weather = Weather()
        self.network = Network(self.name)
        self._inside, self._services = leftovers.groups_of(self.name)
        self._helpers: list[subprocess.Popen[bytes]] = []
        self._close = contextlib.ExitStack()
        self._close.callback(leftovers.sweep, self.name)
        try:
            self.data = Disk(self.folder / "data.img")
            self.data.make(DATA_DISK_SIZE)
            boot = Disk(self.folder / "boot.img")
            boot.make(BOOT_DISK_SIZE)
            boot.format("ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1")
            self.network.make(egress=egress)
            self._names = self.folder / "hosts"
            self._names.mkdir()
            self.serve(*self.network.resolver(self.folder / "names", self._names, egress=egress))
            self.guest = Nspawn(
                name=self.name,
                folder=self.folder,
                root=root,
                network=self.network,
                group=self._inside,
                boot=boot,
                data=self.data,
            )
            sockets = [self.network.listen(80), self.network.listen(API_PORT, "127.0.0.1")]
            self.cloud = CloudBox(guest=self.guest, middleware=self.weather.wrap, sockets=sockets)
            self.guest.report_to(self.cloud.box.poweroff)
            self._close.callback(self.cloud.close)
            self._engine = ComputeEngine(
                project=PROJECT,
                instance=INSTANCE,
                endpoint=self.cloud.url,
                credentials_file=None,
                now=lambda: datetime.now(UTC),
            )
            self._close.callback(lambda: asyncio.run(self._engine.close()))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Take everything away, whatever state it is in."""
        try:
            self._close.close()
        finally:
            for helper in self._helpers:
                helper.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def serve(self, *command: str) -> None:
        """Run a program beside the machine for as long as it lives."""
        log = (self.folder / "services").open("ab")
        with log:
            helper = subprocess.Popen(
                in_group(self._services.join(), *command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._helpers.append(helper)

    def lead(self, name: str, address: str) -> None:
        """Let a name lead to an address."""
        (self._names / name).write_text(f"{address} {name}\n", "utf-8")

    def forget(self, name: str) -> None:
        """Let a name lead nowhere."""
        (self._names / name).unlink(missing_ok=True)

    def trust(self, certificate: bytes) -> None:
        """Let it know an authority, as from its image on. It must be off."""
        known = "etc/ssl/certs/ca-certificates.crt"
        whole = next(path for layer in self.guest.layers if (path := layer / known).exists()).read_bytes() + certificate
        self.guest.put(known, whole)
        self.guest.put("usr/local/share/ca-certificates/tests.crt", certificate)

    # -- from outside: Compute Engine's API, by our own client ---------------------------------------------------------

    @property
    def status(self) -> Status:
        """Compute Engine's word for it."""
        return self.cloud.machine.status

    def metadata(self, **changes: str) -> None:
        """Set metadata, as the app does: underscores stand for dashes, an empty value deletes the key."""
        self.set_metadata({name.replace("_", "-"): value for name, value in changes.items()})

    def set_metadata(self, changes: Mapping[str, str]) -> None:
        """Set metadata and wait until it is set."""
        name = asyncio.run(self._engine.set_metadata(ZONE, str(uuid.uuid4()), changes))
        if name is not None:
            self._done(name)

    def start(self) -> float:
        """Start it, and return the monotonic moment at which it got its electricity."""
        boots = self.guest.boots
        asyncio.run(self._engine.start(ZONE, str(uuid.uuid4())))
        self.until(lambda: self.guest.boots > boots, "its electricity", every=0.002)
        return time.monotonic()

    def stop(self) -> None:
        """Stop it by Compute Engine, and wait until it is off."""
        asyncio.run(self._engine.stop(ZONE, str(uuid.uuid4())))
        self.wait_off()

    def reset(self) -> None:
        """Take its electricity for a moment, by Compute Engine."""
        boots = self.guest.boots
        client = compute_v1.InstancesClient(**self._google())
        client.reset(project=PROJECT, zone=ZONE, instance=INSTANCE)
        self.until(lambda: self.guest.boots > boots, "another boot")

    def reserve_address(self) -> str:
        """Give it an external address that it keeps, as its owner does in the console; return it."""
        addresses = compute_v1.AddressesClient(**self._google())
        addresses.insert(project=PROJECT, region=REGION, address_resource=compute_v1.Address(name=INSTANCE))

        def made() -> compute_v1.Address:
            return addresses.get(project=PROJECT, region=REGION, address=INSTANCE)

        self.until(lambda: made().status == "RESERVED", "an address", every=0.1)
        access = compute_v1.AccessConfig(name=ACCESS, nat_i_p=made().address)
        instances = compute_v1.InstancesClient(**self._google())
        where = {"project": PROJECT, "zone": ZONE, "instance": INSTANCE, "network_interface": NIC}
        removal = compute_v1.DeleteAccessConfigInstanceRequest(access_config=ACCESS, **where)
        self._done(instances.delete_access_config(removal).name)
        addition = compute_v1.AddAccessConfigInstanceRequest(access_config_resource=access, **where)
        self._done(instances.add_access_config(addition).name)
        return access.nat_i_p

    def _google(self) -> dict[str, Any]:
        options = ClientOptions(api_endpoint=self.cloud.url)
        return {"credentials": AnonymousCredentials(), "client_options": options}

    def power_cut(self) -> None:
        """Take its electricity at this very moment; it stays off."""
        self.guest.cut()
        self.guest.report()
        self.wait_off()

    def wait_off(self, within: float = PATIENCE) -> None:
        """Wait until Compute Engine calls it TERMINATED, and it has lost its electricity, which follows."""
        self.until(lambda: self.status is Status.TERMINATED and self.guest.is_off(), "TERMINATED", within=within)

    def attributes(self) -> dict[str, str]:
        """Return the guest attributes that the app's client reads."""
        return asyncio.run(self._engine.guest_attributes(ZONE))

    def _done(self, operation: str) -> None:
        self.until(lambda: asyncio.run(self._engine.operation(ZONE, operation)).done, f"operation {operation}")

    # -- inside --------------------------------------------------------------------------------------------------------

    def sh(self, script: str, *, within: float = PATIENCE, check: bool = True) -> str:
        """Run a shell script inside as root and return what it printed. Raises `CommandFailed`."""
        return run(*self.guest.inside("/bin/sh", "-euc", script), within=within, check=check)

    def wait_booted(self, within: float = PATIENCE) -> str:
        """Wait until systemd has started all that it starts at boot, and return its word for the result."""
        self.until(self._has_bus, "systemd", within=within)
        return self.sh("systemctl is-system-running --wait", within=within, check=False)

    def journal(self, unit: str = "", *, boot: int = 0) -> str:
        """Return what the journal has of a unit, or of everything, in this boot or one before (-1)."""
        only = f"--unit={unit}" if unit else ""
        return self.sh(f"journalctl --no-pager --quiet --output=cat --boot={boot} {only}")

    def get(self, port: int, path: str, *, within: float = 5) -> tuple[int, str]:
        """Ask a program that listens on the machine's loopback. Raises `OSError` when nobody does."""
        return self.request(port, "GET", path, within=within)

    def request(self, port: int, method: str, path: str, body: Any = None, *, within: float = 5) -> tuple[int, str]:
        """Send a request, with a body as JSON, to the machine's loopback; return status and text."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=within)
        connection.sock = self.network.connect(port, within=within)
        with contextlib.closing(connection):
            content = None if body is None else json.dumps(body)
            connection.request(method, path, content, {"Content-Type": "application/json"} if content else {})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def until(self, holds: Callable[[], object], what: str, *, within: float = PATIENCE, every: float = 0.05) -> None:
        """Wait until something holds. Raises `TooLate`, with what the machine has to say."""
        end = time.monotonic() + within
        while not holds():
            if time.monotonic() > end:
                raise TooLate(f"{what}: not within {within:g} s\n{self.tell()}")
            time.sleep(every)

    def tell(self) -> str:
        """Return what helps to understand a failure."""
        try:
            said = self.sh("systemctl --failed --no-legend; journalctl --no-pager --boot=0 --lines=60", check=False)
        except CommandFailed:
            said = (
                self.guest.console.read_text("utf-8", errors="replace")[-4000:] if self.guest.console.exists() else ""
            )
        return f"status {self.status}\n{said}"

    def _has_bus(self) -> bool:
        try:
            self.sh("test -S /run/systemd/private -a -S /run/dbus/system_bus_socket")
        except CommandFailed:
            return False
        return True
