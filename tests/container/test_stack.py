"""Production by the README's own lines: the app, Caddy in front of it, a key; and a cloud that takes that key."""

import json
import os
import ssl
import subprocess
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.conftest import CHROMIUM
from tests.container.docker import COMPOSE, IMAGE, PATIENCE, Container, docker, lacking
from tests.demo.test_identity import key_file
from tests.launching import ROOT, free_ports
from tests.test_documents import shell_blocks

NAME = "app.example.com"
CADDY = os.environ.get("CADDY_IMAGE", "caddy:2")
# The cloud is on the app's own loopback, as everything that may reach it.
CLOUD = """
services:
  comfyweb:
    environment:
      COMPUTE_ENDPOINT: http://127.0.0.1:3001
      COMFYUI_URL: http://localhost:3002
  cloud:
    image: comfyweb
    command: python -m comfyweb.demo --fast --keys /run/secrets/sa-key.json
    network_mode: service:comfyweb
    volumes: ["./sa-key.json:/run/secrets/sa-key.json:ro"]
"""
# All that runs there but its init, which ends with it.
KILL = """
import os, signal
for each in os.listdir("/proc"):
    if each.isdigit() and int(each) not in {1, os.getpid()}:
        os.kill(int(each), signal.SIGKILL)
"""
# Wrong passwords, each said to come from another address.
WRONG = """
import json, ssl, sys, urllib.error, urllib.request
tls = ssl.create_default_context(cadata=sys.argv[1])
body = json.dumps({"password": "not the password"}).encode()
for number in range(int(sys.argv[2])):
    headers = {"Content-Type": "application/json", "X-Forwarded-For": f"192.0.2.{number}"}
    asked = urllib.request.Request("https://app.example.com/api/auth/login", body, headers)
    try:
        urllib.request.urlopen(asked, context=tls)
    except urllib.error.HTTPError as error:
        print(error.code)
"""


LACKING = lacking(CADDY)
pytestmark = [pytest.mark.slow, pytest.mark.browser, pytest.mark.skipif(bool(LACKING), reason=LACKING)]


@dataclass(frozen=True)
class Stack:
    """What runs. `http` and `https` are where Caddy's ports 80 and 443 are published, `app` the app's own."""

    folder: Path
    http: int
    https: int
    app: int

    @property
    def password(self) -> str:
        """What the README's lines made."""
        lines = (self.folder / ".env").read_text().splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith("AUTH_PASSWORD="))

    @property
    def root(self) -> str:
        """The certificate of Caddy's own authority."""
        return docker("exec", self.container("caddy"), "cat", "/data/caddy/pki/authorities/local/root.crt")

    def compose(self, *arguments: str) -> str:
        """Say it to compose."""
        files = [word for name in FILES for word in ("-f", name)]
        ran = subprocess.run(
            [*COMPOSE, *files, *arguments],
            cwd=self.folder,
            env=self.environ,
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout

    @property
    def environ(self) -> dict[str, str]:
        """Return the environment of compose. The app is also published, at a port that nobody needs here."""
        return {**os.environ, "APP_DOMAIN": NAME, "COMFYWEB_PORT": str(self.app)}

    def container(self, service: str) -> str:
        """Return the id of a service's container."""
        return self.compose("ps", "--quiet", service).strip()

    def client(self) -> httpx.Client:
        """Return somebody who comes by the name, and believes Caddy's authority alone."""
        tls = ssl.create_default_context(cadata=self.root)
        base = f"https://127.0.0.1:{self.https}"
        client = httpx.Client(base_url=base, verify=tls, headers={"host": NAME})
        client.event_hooks["request"].append(_by_name)
        return client


def _by_name(request: httpx.Request) -> None:
    request.extensions["sni_hostname"] = NAME


FILES = ("compose.yml", "compose.key.yml", "compose.caddy.yml", "compose.cloud.yml")


def eventually(what: Callable[[], bool]) -> None:
    """Wait until it is so."""
    until = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < until, "it never was so"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stack]:
    folder = tmp_path_factory.mktemp("production")
    port = free_ports(3)
    made = Stack(folder, http=port, https=port + 1, app=port + 2)
    for name in FILES[:-1]:
        (folder / name).write_text((ROOT / name).read_text())
    # What can't be here: a name of ours in the DNS with an authority that looks it up, and free ports 80 and 443.
    caddy = (folder / "compose.caddy.yml").read_text()
    for line, here in {
        "caddy reverse-proxy --from": "caddy reverse-proxy --internal-certs --from",
        '"80:80", "443:443"': f'"127.0.0.1:{made.http}:80", "127.0.0.1:{made.https}:443"',
    }.items():
        assert line in caddy
        caddy = caddy.replace(line, here)
    (folder / "compose.caddy.yml").write_text(caddy)
    (folder / "compose.cloud.yml").write_text(CLOUD)
    (folder / "sa-key.json").write_text(json.dumps(key_file()))

    blocks = shell_blocks(ROOT / "README.md")
    [settings] = [block for block in blocks if "cat > .env" in block]
    assert "my-project" in settings
    subprocess.run(["bash", "-eu", "-c", settings.replace("my-project", "demo-project")], cwd=folder, check=True)
    [start] = [block for block in blocks if "compose.caddy.yml" in block]
    own, _, up = start.strip().partition("\n")
    # As root: that is for whoever types it.
    docker("run", "--rm", "--user=0", f"--volume={folder}:/here", "--workdir=/here", IMAGE, *own.split())
    up = up.replace("docker compose", " ".join(COMPOSE)).replace(" up ", " -f compose.cloud.yml up ")
    try:
        command = ["bash", "-eu", "-c", up.replace("--build", "--no-build")]
        subprocess.run(command, cwd=folder, env=made.environ, check=True)
        yield made
    finally:
        made.compose("down", "--volumes")


@pytest.fixture(scope="module")
def browser(stack: Stack) -> Generator[Browser]:
    """Start a Chromium that finds the name here."""
    found = f"MAP {NAME}:443 127.0.0.1:{stack.https}, MAP {NAME}:80 127.0.0.1:{stack.http}"
    sandbox = [] if os.getuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*sandbox, "--disable-dev-shm-usage", f"--host-resolver-rules={found}"]
        )
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser) -> Generator[BrowserContext]:
    made = browser.new_context(ignore_https_errors=True)  # Caddy's authority; `Stack.client` believes it
    yield made
    made.close()


def logged_in(context: BrowserContext, stack: Stack) -> Page:
    page = context.new_page()
    page.goto(f"http://{NAME}/")
    page.wait_for_url(f"https://{NAME}/login")
    page.get_by_label("Password").fill(stack.password)
    page.keyboard.press("Enter")
    page.locator(".page[data-phase]:not([data-phase=logged-out])").wait_for()
    return page


def test_caddy_reads_the_readmes_caddyfile_as_it_is_meant() -> None:
    [block] = [block for block in shell_blocks(ROOT / "README.md") if "Caddyfile" in block]
    written, _, _ = block[block.index("cat >") :].partition("systemctl")
    read = docker("run", "--rm", CADDY, "sh", "-ec", f"{written}\ncaddy adapt --config /etc/caddy/Caddyfile")
    [server] = json.loads(read)["apps"]["http"]["servers"].values()
    [route] = server["routes"]
    assert route["match"] == [{"host": [NAME]}]
    assert '"dial": "localhost:3000"' in json.dumps(route["handle"])


def test_all_of_it_is_healthy_and_the_key_is_taken(stack: Stack) -> None:
    def healthy() -> bool:
        state = docker("inspect", "--format", "{{.State.Health.Status}}", stack.container("comfyweb"))
        return state == "healthy"

    eventually(healthy)
    with stack.client() as client:
        eventually(lambda: client.get("/readyz").status_code == 200)
        eventually(lambda: client.get("/readyz").json()["status"] == "ok")
        answer = client.get("/login")
        assert answer.headers["strict-transport-security"].startswith("max-age=31536000")
    redirect = httpx.get(f"http://127.0.0.1:{stack.http}/", headers={"host": NAME})
    assert (redirect.status_code, redirect.headers["location"]) == (308, f"https://{NAME}/")


def test_the_machine_is_started_and_stopped_over_caddys_https_and_websocket(
    stack: Stack, context: BrowserContext
) -> None:
    page = logged_in(context, stack)
    page.get_by_role("button", name="Start", exact=True).click()
    page.locator(".page[data-phase=ready]").wait_for(timeout=60_000)
    page.get_by_role("button", name="Stop", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Stop", exact=True).click()
    page.locator(".page[data-phase=off]").wait_for(timeout=60_000)


def test_behind_caddy_a_page_of_ours_is_told_from_one_of_somebody_elses(stack: Stack) -> None:
    socket = "/_event/?EIO=4&transport=websocket&token=t"
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    upgrade |= {"sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    with stack.client() as client:
        answer = client.post("/api/auth/login", json={"password": stack.password})
        cookie = {"cookie": f"auth-token={answer.json()['token']}"}
        for origin, allowed in ((f"https://{NAME}", True), (f"http://{NAME}", False), ("https://evil.example", False)):
            stopped = client.post("/api/instance/stop", headers=cookie | {"origin": origin})
            assert stopped.status_code == (200 if allowed else 403), origin
            with client.stream("GET", socket, headers=upgrade | {"origin": origin}) as opened:
                assert (opened.status_code == 101) is allowed, origin


def test_each_visitor_counts_by_his_own_address_whatever_he_says_it_is(stack: Stack) -> None:
    networks = json.loads(docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", stack.container("caddy")))
    [(network, details)] = networks.items()
    near = (f"--network={network}", f"--add-host={NAME}:{details['IPAddress']}")
    sleeping = ("sleep", "infinity")
    with Container(*near, command=sleeping) as one, Container(*near, command=sleeping) as other:

        def refused(by: Container, *, times: int) -> list[str]:
            return docker("exec", by.id, "python", "-c", WRONG, stack.root, str(times)).split()

        assert refused(one, times=11) == ["401"] * 10 + ["429"]
        assert refused(other, times=1) == ["401"]


def test_a_killed_app_is_started_again_and_tabs_come_back(stack: Stack, context: BrowserContext) -> None:
    page = logged_in(context, stack)
    app = stack.container("comfyweb")
    before = docker("inspect", "--format", "{{.State.StartedAt}}", app)
    subprocess.run(["docker", "exec", app, "python", "-c", KILL], check=False)  # it ends with what it kills
    lost = page.get_by_role("alert").filter(has_text="onnection")
    expect(lost).to_be_visible(timeout=60_000)
    eventually(lambda: docker("inspect", "--format", "{{.State.StartedAt}}", app) != before)
    expect(lost).to_be_hidden(timeout=60_000)


def test_it_is_stopped_cleanly(stack: Stack) -> None:
    app = stack.container("comfyweb")
    stack.compose("stop", "comfyweb")
    assert docker("inspect", "--format", "{{.State.ExitCode}}", app) == "0"
