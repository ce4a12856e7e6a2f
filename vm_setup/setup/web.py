"""nginx, in front of everything: its configuration, tried before it replaces a good one, and its place on the machine.

At boot nginx starts from what lies on the disk, before anything else is known. Here it is only written anew when it
should be another. The distribution's own nginx is switched off: the ports are ours.
"""

import html
import json
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from vm_setup.base import files, tls
from vm_setup.base.paths import Data, Paths
from vm_setup.base.places import NGINX_UNIT, USER
from vm_setup.base.places import PORT as KEEPER_PORT
from vm_setup.base.tls import NONE, Tls
from vm_setup.host import drain
from vm_setup.host.gate import Closed
from vm_setup.setup import layout, units
from vm_setup.setup.adoption import Manifest
from vm_setup.setup.steps import GATE, Steps
from vm_setup.setup.system import LOG, System, Trouble

THEIRS = "nginx.service"
FOLDER = "comfyweb/nginx"
HSTS_SECONDS = 365 * 86400
EVERYBODY = "geo $comfyweb_visitor {\n  default 1;\n}\n"
# Mozilla's intermediate set (https://wiki.mozilla.org/Security/Server_Side_TLS), without its DHE suites.
_CIPHERS = ":".join(
    f"ECDHE-{key}-{suite}"
    for suite in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for key in ("ECDSA", "RSA")
)
# A title and words for each page; those that look again do so every two seconds.
PAGES = {
    Closed.WARMING.value: ("ComfyUI is starting", "This page looks again every two seconds."),
    Closed.STRANGER.value: (
        "Please log in",
        "This machine opens only from its control page. Open that page, log in, and come back from there.",
    ),
    Closed.DRAINING.value: ("This machine is about to stop", drain.WORDS),
    Closed.STAYING.value: ("This machine is about to stop", drain.SESSION_WORDS),
    Closed.SILENT.value: (
        "The gate doesn't answer",
        "So nobody is let in. It starts again by itself, and this page looks again every two seconds.",
    ),
    "keeper": ("The keeper doesn't answer", "It is started again by itself. Try again in a few seconds."),
}
_LOOKS_AGAIN = (Closed.WARMING.value, Closed.SILENT.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What nginx's configuration depends on. `visitors` is what sets `$comfyweb_visitor` (see the firewall)."""

    tls: Tls = field(default_factory=Tls)
    visitors: str = EVERYBODY
    ipv6: bool = True
    paths: Paths = field(default_factory=Paths)
    comfyui: tuple[str, int] = ("127.0.0.1", 8188)
    user: str = f"www-data {USER}"
    http: str = "80"
    https: str = "443"
    keeper: int = KEEPER_PORT

    @property
    def run(self) -> Path:
        """What nginx writes: its process id, and the little that it has to put down."""
        return self.paths.root / "run/comfyweb-nginx"

    @property
    def pages(self) -> Path:
        """What nginx shows when nobody else answers."""
        return self.paths.etc / FOLDER / "pages"


def render(site: Site) -> str:
    """Return nginx's configuration."""
    acme = _packed("acme.conf").replace("@WEBROOT@", str(site.paths.acme))
    servers = _site(site, acme)
    if site.tls.mode != NONE:
        redirect = _packed("redirect.conf").replace("@ACME@", acme.replace("@OPEN@", "").rstrip("\n"))
        redirect = redirect.replace("@HTTPS_PORT@", "" if site.https == "443" else f":{site.https}")
        servers = _listening(redirect, "PORT", site.http, site) + servers
    filled = {
        "USER": site.user,
        "RUN": str(site.run),
        "GATE": str(site.paths.gate),
        "COMFYUI": "{}:{}".format(*site.comfyui),
        "KEEPER": f"127.0.0.1:{site.keeper}",
        "DRAIN_SECONDS": str(drain.RETRY_AFTER_SECONDS),
        "VISITORS": site.visitors,
        "SERVERS": servers,
    }
    text = _packed("nginx.conf")
    for name, value in filled.items():
        text = text.replace(f"@{name}@", value)
    return text


def _site(site: Site, acme: str) -> str:
    text = _packed("site.conf").replace("@PAGES@", str(site.pages))
    tls = hsts = ""
    if site.tls.mode == NONE:
        text = _listening(text, "LISTEN", site.http, site)
        text = text.replace("@SITE_ACME@", acme.replace("@OPEN@", "auth_request off;\n      "))
    else:
        text = _listening(text, "LISTEN", site.https, site, " ssl http2").replace("@SITE_ACME@", "")
        tls = f"""
    ssl_certificate {site.tls.chain};
    ssl_certificate_key {site.tls.key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers {_CIPHERS};
    ssl_prefer_server_ciphers off;
    ssl_session_cache shared:tls:10m;
    ssl_session_timeout 1d;
    ssl_session_tickets off;
"""
        if site.tls.trusted:
            hsts = f'\n    add_header Strict-Transport-Security "max-age={HSTS_SECONDS}" always;'
    return text.replace("@TLS@", tls).replace("@HSTS@", hsts)


def _listening(text: str, name: str, port: str, site: Site, more: str = "") -> str:
    also = f"\n    listen [::]:{port}{more} default_server;" if site.ipv6 else ""
    return text.replace(f"@{name}@", port + more).replace(f"@{name}_V6@", also)


def _packed(name: str) -> str:
    return resources.files("vm_setup").joinpath("nginx", name).read_text("utf-8")


def write_pages(folder: Path) -> None:
    """Write each page, for people and for programs; what refuses a prompt has the shape of ComfyUI's own errors."""
    for name, (title, words) in PAGES.items():
        refresh = '\n<meta http-equiv="refresh" content="2">' if name in _LOOKS_AGAIN else ""
        page = _packed("page.html").replace("@REFRESH@", refresh).replace("@TITLE@", html.escape(title))
        files.write_changed(folder / f"{name}.html", page.replace("@WORDS@", html.escape(words)))
        said: dict[str, object] = {"error": f"{title}. {words}"}
        if name in {Closed.DRAINING.value, Closed.STAYING.value}:
            said = drain.refusal(stay=name == Closed.STAYING.value)
        files.write_changed(folder / f"{name}.json", json.dumps(said) + "\n")


def ensure(system: System, steps: Steps) -> None:
    """Have nginx in front of everything, and the gate's user. Raises `Trouble`."""
    layout.ensure_service_user(system, USER)
    changed = units.apply(system, (NGINX_UNIT, units.GATE), Data(volume=system.paths.mount))
    if units.GATE in changed:
        system.run("systemctl", "restart", units.GATE)
    _switch_off_theirs(system)
    apply(system)
    steps.done(GATE)


def apply(system: System) -> None:
    """Put in force what nginx's configuration should be, unless it is. Raises `Trouble`; then the old one stays."""
    with files.locked(system.paths.runtime / "nginx.lock"):
        _apply(system)


def _apply(system: System) -> None:
    paths = system.paths
    visitors = files.read(paths.etc / FOLDER / "visitors.conf") or EVERYBODY
    site = Site(
        tls=tls.current(paths),
        visitors=visitors,
        ipv6=(paths.kernel / "proc/net/if_inet6").exists(),
        paths=paths,
    )
    text = render(site)
    write_pages(site.pages)
    # What was loaded last: another certificate in the same place is loaded too, also when we were killed before.
    noted, now = paths.state / "nginx-loaded", files.digest(text, files.read(site.tls.chain))
    current, tried = paths.etc / FOLDER / "nginx.conf", paths.etc / FOLDER / "tried.conf"
    if files.read(noted) == now and files.read(current) == text:
        return
    site.run.mkdir(mode=0o755, parents=True, exist_ok=True)
    files.write(tried, text)
    done = system.run("nginx", "-t", "-q", "-c", tried)
    files.remove(tried)
    if not done.ok:
        raise Trouble(f"nginx refuses its new configuration, so what it had stays in force: {done.words}")
    files.write_changed(current, text)
    loaded = system.run("systemctl", "reload-or-restart", NGINX_UNIT)
    if not loaded.ok:
        raise Trouble(f"nginx could not be started: {loaded.words}")
    LOG.info("nginx has a new configuration.")
    files.write(noted, now)


def _switch_off_theirs(system: System) -> None:
    """Free the ports. An nginx that has served something is put aside for `adopt-undo`; the adoption tells of it."""
    enabled = system.paths.units / f"multi-user.target.wants/{THEIRS}"
    if not enabled.is_symlink():
        return
    manifest = Manifest(system)
    sites = {path.name for path in system.paths.etc.glob("nginx/sites-enabled/*")}
    if sites <= {"default"} and not manifest.entries():  # the archive's own, which came with the package
        files.remove(enabled)
    else:
        manifest.put_aside(enabled)
    system.run("systemctl", "stop", THEIRS)
