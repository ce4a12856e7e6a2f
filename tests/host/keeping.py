"""A keeper inside the test's own process, with real sockets around it and clocks that the test moves."""

import hashlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.demo.standin_machine import APP, App
from tests.host import surroundings
from tests.host.surroundings import Clocks, Peer, Programs, until
from tests.launching import free_ports
from vm_setup.base.paths import Paths
from vm_setup.keeper.daemon import Keeper
from vm_setup.keeper.world import World


@dataclass
class Keeping:
    """A machine with a keeper."""

    root: Path
    programs: Programs
    comfyui: Peer
    metadata: Peer
    clocks: Clocks = field(default_factory=Clocks)
    slept: float = 0.0
    look_every: float = 0.02
    port: int = field(default_factory=free_ports)
    app: App = field(init=False)
    _keeper: Keeper | None = None
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        """Make the app's key known."""
        self.root.mkdir()
        self.app = App(self.clocks, APP)  # pyright: ignore[reportArgumentType] - it only reads the time
        surroundings.change(self.metadata, comfyweb_app_origin=APP, comfyweb_keys=self.app.jwks)

    @property
    def run(self) -> Path:
        """The folder /run/comfyweb."""
        return self.root / "run/comfyweb"

    @property
    def world(self) -> World:
        """What the keeper works with."""
        return World(
            paths=Paths(root=self.root),
            now=self.clocks.now,
            slept=lambda: self.slept,
            comfyui=self.comfyui.url,
            metadata=self.metadata.url,
            port=self.port,
            every=0.02,
            look=self.look_every,
            survey=0.1,
            version="test",
        )

    def start(self) -> None:
        """Start the keeper."""
        self._keeper = Keeper(self.world)
        self._thread = threading.Thread(target=self._keeper.run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; its memory stays."""
        if self._keeper and self._thread:
            self._keeper.stop()
            self._thread.join(10)
            assert not self._thread.is_alive()

    def settled(self) -> None:
        """Wait until a whole round has been done with what is there now."""
        asked = len(self.comfyui.asked)
        until(lambda: len(self.comfyui.asked) > asked + 4)
        before = self.saved.get("at", 0)
        until(lambda: self.saved.get("at", 0) > before + 0.05)

    def surveyed(self) -> None:
        """Wait until the card and ComfyUI's process were looked at anew, and a round has been done with that."""
        before = self.programs.asked
        until(lambda: self.programs.asked > before + 2)
        self.settled()

    @property
    def saved(self) -> dict[str, Any]:
        """The keeper's file."""
        return surroundings.load(self.run / "keeper.json")

    def status(self) -> dict[str, Any]:
        """What the keeper tells a program on the machine."""
        return self.call("GET", "/_host/status", token="")[1]

    def call(
        self, method: str, path: str, body: object = None, *, token: str | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Call as the app does, with a token for this very call; `token` replaces it, empty for none."""
        content = b"" if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}{path}"
        if token is None:
            digest = hashlib.sha256(content).hexdigest()
            token = self.app.token(purpose="host", htm=method, htu=url.partition("?")[0], body_sha256=digest)
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(url, content or None, {**authorization, **headers}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status, raw = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, raw = error.code, error.read()
        except OSError:
            return 0, {}
        try:
            return status, json.loads(raw)
        except ValueError:
            return status, raw.decode()

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file in /run/comfyweb."""
        path = self.run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def keeping(folder: Path, monkeypatch: pytest.MonkeyPatch, **attributes: str) -> Generator[Keeping]:
    """Prepare a machine with a ComfyUI that has nothing to do; its keeper is not started yet."""
    made = Keeping(
        folder / "root", Programs(folder / "bin"), surroundings.comfyui(), surroundings.metadata(**attributes)
    )
    monkeypatch.setenv("PATH", made.programs.path)
    try:
        yield made
    finally:
        made.stop()
        made.comfyui.close()
        made.metadata.close()
