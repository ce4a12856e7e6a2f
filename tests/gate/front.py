"""A whole front of a machine on loopback: real nginx, the gate, the keeper's calls, and a ComfyUI that notes all."""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from comfyweb.demo.comfyui_tunnel import WebSocketClient
from tests.demo.standin_machine import Ear, until
from tests.gate.comfyui import ComfyUI
from tests.gate.gating import Gating, gating
from tests.launching import free_ports
from vm_setup.base.signatures import verifier
from vm_setup.base.tls import Tls
from vm_setup.host import tokens
from vm_setup.host.commands import Command, Revoke
from vm_setup.host.tokens import Claims, Request
from vm_setup.keeper.server import Server
from vm_setup.setup import web
from vm_setup.setup.web import Site

NGINX = shutil.which("nginx", path=f"/usr/sbin:{os.environ['PATH']}")
NAME = "comfy.example.com"
# What a browser is after its user has said to go on: the machine's own certificate is nobody's.
TRUSTING = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TRUSTING.check_hostname = False
TRUSTING.verify_mode = ssl.CERT_NONE


class Keeper:
    """The keeper's calls as the real ones are checked; what they are about is only noted."""

    def __init__(self, gate: Gating) -> None:
        self._gate = gate
        self._verify = verifier()
        self.commands: list[Command] = []
        self.uses = 0

    def health(self) -> dict[str, object]:
        return {"phase": "ready" if self._gate.told.ready else "warming"}

    def status(self) -> dict[str, object]:
        return {"everything": True}

    def journal(self, lines: int) -> bytes:
        return b"a line\n" * lines

    def check(self, token: str, request: Request) -> Claims | None:
        assert self._verify is not None
        now, trust = self._gate.clocks.now().wall, self._gate.told.trust
        purpose = tokens.Purpose.HOST
        found = tokens.check(token, purpose=purpose, trust=trust, verify=self._verify, now=now, request=request)
        return None if isinstance(found, tokens.Refusal) else found

    def obey(self, command: Command, claims: Claims) -> None:
        self.commands.append(command)
        if isinstance(command, Revoke):
            self._gate.revoke(command.session)

    def used(self) -> None:
        self.uses += 1


@dataclass
class Front:
    """What stands between a browser and ComfyUI."""

    gate: Gating
    site: Site
    keeper: Keeper
    server: Server
    log: Path
    config: Path
    _nginx: "subprocess.Popen[bytes] | None" = None
    browsers: list[httpx.AsyncClient] = field(default_factory=list[httpx.AsyncClient])

    @property
    def comfyui(self) -> ComfyUI:
        return self.gate.comfyui

    @property
    def https(self) -> bool:
        return self.site.tls.mode != "none"

    @property
    def port(self) -> int:
        return int(self.site.https if self.https else self.site.http)

    @property
    def url(self) -> str:
        """Where a browser finds ComfyUI."""
        return f"{'https' if self.https else 'http'}://localhost:{self.port}"

    async def start(self) -> None:
        """Start nginx with its configuration as it is now."""
        assert NGINX is not None
        web.write_pages(self.site.pages)
        self.site.run.mkdir(parents=True, exist_ok=True)
        self.config.write_text("daemon off;\n" + web.render(self.site))
        with self.log.open("ab") as log:
            command = [NGINX, "-c", self.config, "-e", "stderr"]
            self._nginx = subprocess.Popen(command, stderr=log)  # noqa: ASYNC220 - it is waited for below
        await until(lambda: asyncio.sleep(0, self._listens()))

    def stop(self) -> None:
        if self._nginx is not None:
            self._nginx.terminate()
            self._nginx.wait(10)

    def _listens(self) -> bool:
        assert self._nginx is not None
        assert self._nginx.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def browser(self, **options: Any) -> httpx.AsyncClient:
        """Return a browser without a cookie. It trusts every certificate."""
        made = httpx.AsyncClient(base_url=self.url, verify=TRUSTING, trust_env=False, timeout=20, **options)
        self.browsers.append(made)
        return made

    async def entered(self, **claims: object) -> httpx.AsyncClient:
        """Return a browser that came in with a ticket."""
        browser = self.browser()
        answer = await browser.get("/_host/gate", params={"ticket": self.gate.app.ticket(**claims)})
        assert answer.status_code == 303, answer.text
        return browser

    async def websocket(self, browser: httpx.AsyncClient, path: str = "/ws?clientId=1", **headers: str) -> Ear | None:
        """Open a websocket with a browser's cookies; None when it is refused."""
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        context = TRUSTING if self.https else None
        client = WebSocketClient(*await asyncio.open_connection("localhost", self.port, ssl=context))
        given = [("cookie", cookie)] if cookie else []
        if await client.open(f"localhost:{self.port}", path, [*given, *headers.items()]):
            return Ear(client)
        client.close()
        return None

    async def call(self, method: str, path: str, body: object = None) -> httpx.Response:
        """Call the host's API as the app does."""
        content = b"" if body is None else json.dumps(body).encode()
        digest = hashlib.sha256(content).hexdigest()
        htu = self.url + path.partition("?")[0]
        token = self.gate.app.token(purpose="host", htm=method, htu=htu, body_sha256=digest)
        headers = {"Authorization": f"Bearer {token}"}
        return await self.browser().request(method, path, content=content, headers=headers)

    async def raw(self, text: str, *, whole: bool = True) -> str:
        """Send these bytes, and return all that comes back, or its first line."""
        context = TRUSTING if self.https else None
        reader, writer = await asyncio.open_connection("localhost", self.port, ssl=context)
        writer.write(text.encode("latin-1"))
        try:
            return (await asyncio.wait_for(reader.read() if whole else reader.readline(), 20)).decode("latin-1")
        finally:
            writer.close()


def certificate(folder: Path, *, trusted: bool = False) -> Tls:
    """Make a certificate as the machine makes one for itself. `trusted` is what it is taken for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + timedelta(9))
    tls = Tls(mode="self-signed", chain=folder / "chain.pem", key=folder / "key.pem", trusted=trusted)
    form = serialization.PrivateFormat.PKCS8
    tls.chain.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    tls.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return tls


@asynccontextmanager
async def front(folder: Path, **changes: Any) -> AsyncGenerator[Front]:
    """Run one; `changes` go over the usual `Site`."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    async with gating() as gate:
        keeper = Keeper(gate)
        server = Server(keeper, port=0)
        server.start()
        site = Site(
            paths=gate.world.paths,
            comfyui=gate.world.comfyui,
            user="root" if os.geteuid() == 0 else "nobody",
            http=str(free_ports()),
            https=str(free_ports()),
            keeper=server.port,
            ipv6=False,
        )
        made = Front(gate, replace(site, **changes), keeper, server, folder / "nginx.log", folder / "nginx.conf")
        await made.start()
        try:
            yield made
        finally:
            for browser in made.browsers:
                await browser.aclose()
            made.stop()
            server.shutdown()
            server.server_close()


def written(front_: Front) -> Iterator[tuple[Path, str]]:
    """Yield every file that nginx or the gate has written, with its text."""
    yield front_.log, front_.log.read_text("latin-1")
    for path in front_.gate.root.rglob("*"):
        if path.is_file():
            yield path, path.read_text("latin-1")
