"""What a user of comfyweb has beyond the machine: the app itself behind an https proxy, a browser, and names for both.

All of it runs beyond the machine's cable, so that it meets the machine as the world does: by its names, its external
address, and its certificate.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import BrowserContext, Playwright

from tests.conftest import CHROMIUM
from tests.host.authority import issue
from tests.launching import REQUIRED, Program
from tests.machines import authorities, sources
from tests.machines.commands import run
from tests.machines.machine import API_PORT, Machine
from tests.machines.network import GATEWAY

PAGE, GIT, ACME = "app.example.test", "git.example.test", "acme.example.com"
COMFYUI = "comfy.example.test"  # one site with the page
ELSEWHERE = "comfy.elsewhere.test"  # another site
PASSWORD = REQUIRED["AUTH_PASSWORD"]
_APP_PORT, _GIT_PORT = 3000, 9418
_FRONT = """
daemon off;
pid {folder}/front.pid;
error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/front;
  proxy_temp_path {folder}/front;
  ssl_certificate {folder}/front.pem;
  ssl_certificate_key {folder}/front.key;
  map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
  proxy_http_version 1.1;
  proxy_buffering off;
  proxy_read_timeout 1d;
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection $connection_upgrade;
  server {{
    listen {address}:443 ssl http2;
    server_name {page};
    location / {{ proxy_pass http://127.0.0.1:{app}; }}
  }}
  server {{
    listen {address}:443 ssl http2;
    server_name {git};
    location / {{ proxy_pass http://127.0.0.1:{git_port}; }}
  }}
}}
"""
# Git's own server for https, as a program that a web server calls: github.com is reached in no other way.
_GIT = """
import http.server, os, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        about = {
            "GIT_PROJECT_ROOT": sys.argv[2], "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path, "QUERY_STRING": query,
            "REQUEST_METHOD": self.command, "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""), "CONTENT_LENGTH": str(len(body)),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(["git", "http-backend"], input=body, stdout=subprocess.PIPE, env={**os.environ, **about})
        head, _, rest = done.stdout.partition(b"\\r\\n\\r\\n")
        said = dict(line.split(": ", 1) for line in head.decode().split("\\r\\n"))
        self.send_response(int(said.pop("Status", "200").split()[0]))
        for name, value in {**said, "Content-Length": str(len(rest))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(rest)
    do_POST = do_GET
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Town:
    """Stands around a machine that has never been on. ComfyUI's names lead to it; Pebble gives it certificates.

    The machine's own image and a browser know the authority of the page's certificate, and Pebble's root.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._folder = machine.folder / "town"
        self._folder.mkdir()
        sources.serve(machine)
        self.address = machine.reserve_address()
        for name, address in {PAGE: GATEWAY, GIT: GATEWAY, COMFYUI: self.address, ELSEWHERE: self.address}.items():
            machine.lead(name, address)
        own = issue(PAGE, GIT, ACME)
        self._pebble = authorities.serve_pebble(machine, own)
        authority = own.chain[own.chain.rindex(b"-----BEGIN") :]
        (self._folder / "front.pem").write_bytes(own.chain)
        (self._folder / "front.key").write_bytes(own.key)
        self._beside(sys.executable, "-c", _GIT, str(_GIT_PORT), str(sources.repositories()))
        (self._folder / "front.conf").write_text(
            _FRONT.format(folder=self._folder, address=GATEWAY, page=PAGE, app=_APP_PORT, git=GIT, git_port=_GIT_PORT)
        )
        self._beside(shutil.which("nginx") or "nginx", "-c", str(self._folder / "front.conf"), "-e", "stderr")
        machine.until(self._has_root, "Pebble")
        self._known = self._folder / "known.pem"
        self._known.write_bytes(authority + authorities.root(machine, self._pebble))
        machine.trust(self._known.read_bytes())
        self._chromium = self._install_chromium()

    @contextmanager
    def app(self, name: str = COMFYUI, **more: str) -> Generator[Program]:
        """Run comfyweb at https://app.example.test, with a database of its own; ComfyUI is called `name`, if at all."""
        settings = {
            "PUBLIC_URL": f"https://{PAGE}",
            "PORT": str(_APP_PORT),
            "TRUSTED_PROXY_HOPS": "1",
            "COMPUTE_ENDPOINT": f"http://127.0.0.1:{API_PORT}",
            "DATABASE_URL": f"sqlite:///{self._folder / os.urandom(4).hex()}.db",
            "COMFYUI_GIT": f"https://{GIT}/comfyui",
            "COMFYUI_RELEASE": sources.FIRST,
            "SSL_CERT_FILE": str(self._known),
            **({"COMFYUI_DOMAIN": name, "SSL_EMAIL": "me@example.com"} if name else {}),
            **more,
        }
        with Program("-m", "comfyweb", environ=REQUIRED | settings, by=self.machine.network.enter) as program:
            program.says("serving")
            self.machine.until(self._answers, "the app")
            yield program

    @contextmanager
    def browser(self, playwright: Playwright, **preferences: object) -> Generator[BrowserContext]:
        """Start a Chromium that has never been here, with these preferences; it trusts both authorities."""
        profile = self._folder / os.urandom(4).hex()
        (profile / "Default").mkdir(parents=True)
        (profile / "Default/Preferences").write_text(json.dumps({"profile": preferences}))
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=self._chromium,
            args=["--no-sandbox", "--disable-dev-shm-usage"],
            viewport={"width": 1440, "height": 900},
            color_scheme="dark",
        )
        try:
            yield context
        finally:
            context.close()

    def forget_names(self) -> None:
        """Take out of the machine's metadata what an app with a name for ComfyUI has put there."""
        self.machine.set_metadata({"domain_name": "", "ssl_email": ""})

    def fetch(self, url: str, *options: str) -> tuple[int, str]:
        """Ask as a stranger who is on no page; return the status, 0 when nobody answers, and the text."""
        curl = ("curl", "--silent", "--cacert", self._known, "--write-out", "\n%{http_code}", *options, url)
        text, _, status = run(*self.machine.network.enter, *curl, check=False).rpartition("\n")
        return int(status), text

    def _answers(self) -> bool:
        return self.fetch(f"https://{PAGE}/healthz")[0] == 200

    def _has_root(self) -> bool:
        try:
            return bool(authorities.root(self.machine, self._pebble))
        except OSError:
            return False

    def _beside(self, *command: str) -> None:
        self.machine.serve(*self.machine.network.enter, *command)

    def _install_chromium(self) -> Path:
        """Return a program that is Chromium beyond the cable, with a store of authorities of its own."""
        home = self._folder / "home"
        store = home / ".pki/nssdb"
        store.mkdir(parents=True)
        run("certutil", "-N", "-d", f"sql:{store}", "--empty-password")
        certificates = re.findall(r"-----BEGIN.+?END CERTIFICATE-----", self._known.read_text(), re.DOTALL)
        for number, certificate in enumerate(certificates):
            add = ("certutil", "-A", "-d", f"sql:{store}", "-n", f"tests {number}", "-t", "C,,")
            run(*add, said=certificate + "\n")
        program = self._folder / "chromium"
        enter = " ".join(self.machine.network.enter)
        program.write_text(f'#!/bin/sh\nexport HOME="{home}"\nexec {enter} {CHROMIUM} "$@"\n')
        program.chmod(0o755)
        return program
