"""Who gives a machine its certificates, beyond its cable: Pebble, and a Cloud Storage that wants a token."""

import contextlib
import http.client
import ssl
import sys

from tests.host.authority import Pair
from tests.machines.machine import Machine
from tests.machines.network import GATEWAY, METADATA
from tests.pebble import NONCES_REFUSED_PERCENT, Pebble

STORAGE_PORT = 4443
# Answers who comes with a token, as Cloud Storage does; whose token it is, is the metadata server's business.
_STORAGE = """
import http.server, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if not self.headers.get("Authorization", "").startswith("Bearer "):
            return self.send_error(401)
        return super().do_GET()
place = (sys.argv[1], int(sys.argv[2]))
http.server.ThreadingHTTPServer(place, lambda *a: Handler(*a, directory=sys.argv[3])).serve_forever()
"""


def _beside(machine: Machine, *command: str) -> None:
    machine.serve("ip", "netns", "exec", machine.network.outside, *command)


def serve_pebble(machine: Machine, own: Pair | None = None) -> Pebble:
    """Start an authority for a machine, and have the metadata name it. `own` is the certificate that it shows."""
    pebble = Pebble(
        folder=machine.folder / "pebble",
        name="acme.example.com",
        address=GATEWAY,
        port=14000,
        http=80,
        dns=f"{METADATA}:53",
        management=15000,
        nonces_refused_percent=NONCES_REFUSED_PERCENT,
    ).furnish(own)
    machine.lead(pebble.name, GATEWAY)
    settings = [f"{name}={value}" for name, value in pebble.environment.items() if name.startswith("PEBBLE_")]
    _beside(machine, "env", *settings, *pebble.command)
    machine.set_metadata({"comfyweb-acme-server": pebble.url})
    return pebble


def root(machine: Machine, pebble: Pebble) -> bytes:
    """Return the root certificate of what an authority issues, which is another one each time that it is started."""
    context = ssl.create_default_context(cadata=pebble.trusted.read_text())
    connection = http.client.HTTPSConnection(pebble.name, pebble.management, context=context)
    made = machine.network.reach(pebble.management, address=pebble.address)
    with contextlib.closing(connection), context.wrap_socket(made, server_hostname=pebble.name) as connection.sock:
        connection.request("GET", "/roots/0")
        return connection.getresponse().read()


def trust(machine: Machine, pebble: Pebble) -> None:
    """Let a running machine know the authority, and what it issues, as docs/host.md says."""
    text = pebble.trusted.read_text() + root(machine, pebble).decode()
    machine.sh(f"cat > /usr/local/share/ca-certificates/pebble.crt <<'END'\n{text}END\nupdate-ca-certificates 2>&1")


def serve_storage(machine: Machine) -> None:
    """Start a Cloud Storage for a machine; what is in it comes by `store`."""
    folder = machine.folder / "storage"
    folder.mkdir()
    _beside(machine, sys.executable, "-c", _STORAGE, GATEWAY, str(STORAGE_PORT), str(folder))


def use_storage(machine: Machine) -> None:
    """Let a running machine ask there instead of at Google's."""
    folder = "/etc/systemd/system/comfyweb-certificates.service.d"
    setting = f"Environment=STORAGE_EMULATOR_HOST=http://{GATEWAY}:{STORAGE_PORT}"
    machine.sh(f"mkdir -p {folder}; printf '[Service]\\n{setting}\\n' > {folder}/storage.conf; systemctl daemon-reload")


def store(machine: Machine, name: str, pair: Pair) -> dict[str, str]:
    """Put a pair into the bucket `keys`; return the metadata that ask for it."""
    folder = machine.folder / "storage/keys"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.pem").write_bytes(pair.chain)
    (folder / f"{name}.key").write_bytes(pair.key)
    return {"cf_cert_path": f"gs://keys/{name}.pem", "cf_key_path": f"gs://keys/{name}.key"}
