"""A machine around the stand-in for its tests: a metadata server, the app's key, and clocks that the test moves."""

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from wsproto.events import CloseConnection, TextMessage

from comfyweb.demo.comfyui_tunnel import WebSocketClient
from comfyweb.demo.standin import StandIn
from tests.launching import free_ports
from vm_setup.host.messages import Now

APP = "http://localhost:3000"
AUDIENCE = "host:demo-project/us-central1-a/comfyui-gpu"
SESSION = "session-1"


def part(value: object) -> str:
    """Return one part of a JWT."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


class App:
    """The app's half of the contract: a key, and the tokens made with it."""

    def __init__(self, clocks: "Clocks", origin: str) -> None:
        self.origin = origin
        self._clocks = clocks
        self._key = Ed25519PrivateKey.generate()
        self._count = 0

    @property
    def jwks(self) -> str:
        """The public key as the metadata carries it."""
        public = base64.urlsafe_b64encode(self._key.public_key().public_bytes_raw()).decode().rstrip("=")
        return json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": public}]})

    def token(self, **claims: object) -> str:
        """Return a signed token; `claims` go over the usual ones."""
        self._count += 1
        now = self._clocks.now().wall
        usual = {"iss": self.origin, "aud": AUDIENCE, "jti": f"j{self._count}", "sub": SESSION}
        full = {**usual, "iat": int(now), "exp": now + 50, "session_exp": now + 3600, **claims}
        signed = f"{part({'alg': 'EdDSA', 'kid': 'k1'})}.{part(full)}"
        signature = base64.urlsafe_b64encode(self._key.sign(signed.encode())).decode().rstrip("=")
        return f"{signed}.{signature}"

    def ticket(self, **claims: object) -> str:
        """Return a ticket for a browser."""
        return self.token(purpose="ticket", **claims)

    def command(self, method: str, path: str, body: object = None, **claims: object) -> str:
        """Return a command for the metadata."""
        until = self._clocks.now().wall + 500
        return self.token(**{"purpose": "command", "exp": until, "htm": method, "htu": path, "body": body, **claims})

    async def call(self, browser: httpx.AsyncClient, method: str, path: str, body: object = None) -> httpx.Response:
        """Call the host's API as the app does."""
        content = b"" if body is None else json.dumps(body).encode()
        url = str(browser.base_url.join(path.partition("?")[0]))
        digest = hashlib.sha256(content).hexdigest()
        token = self.token(purpose="host", htm=method, htu=url, body_sha256=digest)
        return await browser.request(method, path, content=content, headers={"Authorization": f"Bearer {token}"})


class MetadataServer:
    """The metadata server of one machine: attributes that change, and guest attributes that it writes down."""

    def __init__(self, attributes: dict[str, str]) -> None:
        self.attributes = attributes
        self.written: dict[str, list[dict[str, object]]] = {"phase": [], "heartbeat": []}
        self.broken = False
        self.asked = 0
        self._version = 1
        self.app = Starlette(
            routes=[
                Route("/computeMetadata/v1/instance/attributes/", self._attributes),
                Route("/computeMetadata/v1/instance/guest-attributes/comfyweb/{name}", self._write, methods=["PUT"]),
                Route("/computeMetadata/v1/{path:path}", self._text),
            ]
        )

    def change(self, **attributes: str) -> None:
        """Set attributes as the app does (underscores stand for dashes) and tell whoever waits."""
        self.attributes |= {name.replace("_", "-"): value for name, value in attributes.items()}
        self._version += 1

    async def _attributes(self, request: Request) -> Response:
        self.asked += 1
        if request.query_params.get("wait_for_change") == "true":
            await until(lambda: self._is_news(request), seconds=90)
        if self.broken:
            return PlainTextResponse("<html>no JSON</html>")
        return PlainTextResponse(json.dumps(self.attributes), headers={"ETag": str(self._version)})

    async def _is_news(self, request: Request) -> bool:
        return request.query_params["last_etag"] != str(self._version) or await request.is_disconnected()

    async def _write(self, request: Request) -> Response:
        body = await request.body()
        assert len(body) <= 2048
        self.written[request.path_params["name"]].append(json.loads(body))
        return Response()

    async def _text(self, request: Request) -> Response:
        assert request.headers["Metadata-Flavor"] == "Google"
        known = {
            "project/project-id": "demo-project",
            "instance/zone": "projects/1234/zones/us-central1-a",
            "instance/name": "comfyui-gpu",
        }
        return PlainTextResponse(known[request.path_params["path"]])


@dataclass
class Clocks:
    """Clocks that go on by themselves, and that a test can move."""

    moved: float = 0.0
    looks: int = 0
    booted: float = 0.0

    def reboot(self) -> None:
        """Let the boot's clock begin anew, at nothing."""
        self.booted += self.now().boot

    def now(self) -> Now:
        """Return this moment."""
        self.looks += 1
        return Now(boot=time.monotonic() + self.moved - self.booted, wall=time.time() + self.moved)


@dataclass
class Machine:
    """A stand-in with what surrounds it."""

    app: App
    metadata: MetadataServer
    standin: StandIn
    url: str
    clocks: Clocks
    powered_off: list[float] = field(default_factory=list[float])

    def browser(self) -> httpx.AsyncClient:
        """Return a browser without a cookie."""
        return httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=10)

    async def ready(self) -> None:
        """Wait until ComfyUI answers."""
        async with self.browser() as browser:
            await until(lambda: _is_ready(browser))

    @asynccontextmanager
    async def entered(self) -> AsyncGenerator[httpx.AsyncClient]:
        """Return a browser that came in with a ticket."""
        async with self.browser() as browser:
            await until(lambda: self._enters(browser))
            yield browser

    async def answers(self) -> bool:
        """Whether it knows the app's key."""
        return bool(await self.status())

    async def status(self) -> dict[str, object]:
        """Return what the host tells the app."""
        async with self.browser() as browser:
            answer = await self.app.call(browser, "GET", "/_host/status")
            return answer.json() if answer.is_success else {}

    async def settled(self) -> None:
        """Wait until the stand-in has held the moved clocks against its rules."""
        before = self.clocks.looks
        await until(lambda: asyncio.sleep(0, self.clocks.looks > before + 20))

    async def is_off(self) -> bool:
        """Whether the machine has switched itself off."""
        return bool(self.powered_off)

    async def _enters(self, browser: httpx.AsyncClient) -> bool:
        answer = await browser.get("/_host/gate", params={"ticket": self.app.ticket()})
        return answer.status_code == 303


async def _is_ready(browser: httpx.AsyncClient) -> bool:
    try:
        answer = await browser.get("/_host/health")
    except httpx.TransportError:
        return False
    return answer.json() == {"phase": "ready"}


async def until(holds: Callable[[], Awaitable[bool]], *, seconds: float = 15) -> None:
    """Wait until something holds that another task or process brings about."""
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(app: ASGIApp, port: int) -> AsyncGenerator[None]:
    """Serve an ASGI application on loopback."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, ws="wsproto", lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    try:
        await until(lambda: asyncio.sleep(0, server.started))
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def machine(
    *, origin: str = APP, comfyui_url: str = "", power: bool = True, served: bool = True, **attributes: str
) -> AsyncGenerator[Machine]:
    """A machine that is on and ready, unless told otherwise."""
    clocks = Clocks()
    app = App(clocks, origin)
    known = {"comfyweb-app-origin": origin, "comfyweb-keys": app.jwks}
    metadata = MetadataServer(known | {name.replace("_", "-"): value for name, value in attributes.items()})
    port, metadata_port = free_ports(), free_ports()
    powered_off: list[float] = []
    standin = StandIn(
        port=port,
        metadata_url=f"http://127.0.0.1:{metadata_port}",
        poweroff=lambda: powered_off.append(time.time()),
        pace=0.01,
        comfyui_url=comfyui_url,
        now=clocks.now,
    )
    async with serving(metadata.app, metadata_port) if served else nullcontext():
        made = Machine(app, metadata, standin, f"http://localhost:{port}", clocks, powered_off)
        try:
            if power:
                await standin.power_on("boot-1")
                await made.ready()
                if served:
                    await until(made.answers)
            yield made
        finally:
            await standin.power_off()


class Ear:
    """A browser's websocket to the stand-in."""

    def __init__(self, client: WebSocketClient) -> None:
        self._client = client
        self.heard: list[Any] = []
        self.code: int | None = None

    async def listen(self) -> None:
        """Hear what comes in next."""
        for event in await self._client.hear():
            if isinstance(event, TextMessage):
                self.heard.append(json.loads(event.data))
            elif isinstance(event, CloseConnection):
                self.code = event.code

    async def listen_for(self, *kinds: str) -> list[str]:
        """Listen until each of the kinds was heard, and return all kinds in their order."""
        async with asyncio.timeout(15):
            while not {*kinds} <= {*self.kinds()}:
                await self.listen()
        return self.kinds()

    def kinds(self) -> list[str]:
        """Return the kinds of the messages so far."""
        return [message["type"] for message in self.heard]

    async def listen_to_the_end(self) -> int:
        """Listen until the other side closes, and return its code."""
        async with asyncio.timeout(15):
            while self.code is None:
                await self.listen()
        return self.code

    def close(self) -> None:
        """Hang up."""
        self._client.close()


async def websocket(browser: httpx.AsyncClient, path: str = "/ws", **headers: str) -> Ear | None:
    """Open a websocket with a browser's cookies; None when it is refused."""
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    port = browser.base_url.port or 80
    client = WebSocketClient(*await asyncio.open_connection("127.0.0.1", port))
    if await client.open(f"localhost:{port}", path, [("cookie", cookie), *headers.items()]):
        return Ear(client)
    client.close()
    return None
