"""Pebble, Let's Encrypt's own small authority for tests: how it is furnished and started.

It refuses one nonce in twenty on purpose, as a busy authority does, unless a test wants it quiet; and its questions it
asks at once. https://github.com/letsencrypt/pebble
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.host.authority import Pair, issue

PROGRAM = shutil.which("pebble")
NONCES_REFUSED_PERCENT = 5


@dataclass(frozen=True, kw_only=True)
class Pebble:
    """An authority that listens at `address:port` and is called `name`.

    It asks port `http`, and looks names up at the server `dns`. Its certificates last so many `seconds`. `trusted` is
    the file by which a client knows it.
    """

    folder: Path
    name: str
    address: str
    port: int
    http: int
    dns: str
    management: int = 0
    seconds: int = 7776000
    nonces_refused_percent: int = 0

    @property
    def url(self) -> str:
        return f"https://{self.name}:{self.port}/dir"

    @property
    def trusted(self) -> Path:
        return self.folder / "trusted.pem"

    def furnish(self, own: Pair | None = None) -> "Pebble":
        """Write its files. `own` is the certificate that it shows to its clients."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own = own or issue(self.name)
        (self.folder / "own.pem").write_bytes(own.chain)
        (self.folder / "own.key").write_bytes(own.key)
        self.trusted.write_bytes(own.chain[own.chain.rindex(b"-----BEGIN") :])
        config = {
            "listenAddress": f"{self.address}:{self.port}",
            "managementListenAddress": f"{self.address}:{self.management}" if self.management else "",
            "certificate": str(self.folder / "own.pem"),
            "privateKey": str(self.folder / "own.key"),
            "httpPort": self.http,
            "tlsPort": 5001,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
            "certificateValidityPeriod": self.seconds,
        }
        (self.folder / "config.json").write_text(json.dumps({"pebble": config}))
        return self

    @property
    def command(self) -> list[str]:
        return [PROGRAM or "pebble", "-config", str(self.folder / "config.json"), "-dnsserver", self.dns]

    @property
    def environment(self) -> dict[str, str]:
        refused = str(self.nonces_refused_percent)
        return {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": refused}
