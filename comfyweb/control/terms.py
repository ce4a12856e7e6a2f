"""The terms on which the machine is run, made from the settings: what it must carry, how long it may run, where."""

from datetime import timedelta

from comfyweb.machine.model import Policy
from comfyweb.machine.snapshot import Place
from comfyweb.settings import Settings
from comfyweb.settings_checks import LOOPBACK, host_of
from vm_setup import bundle
from vm_setup.host import cloudflare
from vm_setup.host.bundle import version_of

# What the host believes the app by: kept right also while the machine runs. (contract.md, Metadata)
RUNNING_METADATA = frozenset({"comfyweb-keys", "comfyweb-app-origin", "comfyweb-app-ip"})
# Compute Engine's own limit comes after ours, so that ours can still end a run gently.
AFTER_CAP = timedelta(minutes=15)


def policy(settings: Settings, keys: str) -> Policy:
    """Return what `decide` is held to. `keys` is the public JWKS by which the host knows us.

    A setting that is empty leaves the machine's key as it is: an `allowed_ip` that somebody set by hand must not vanish
    because a variable does. Our own keys, and the old system's password, go when they have no value.
    """
    from_settings = {
        "startup-script-url": settings.startup_script_url,
        "startup-script": None if settings.startup_script_url else bundle.script(),
        "domain_name": settings.comfyui_domain,
        "ssl_email": settings.ssl_email,
        "cf_cert_path": settings.cf_cert_path,
        "cf_key_path": settings.cf_key_path,
        "allowed_ip": ",".join(settings.allowed_ip),
    }
    ours = {
        "enable-guest-attributes": "TRUE",
        "comfyweb-app-origin": settings.public_url,
        "comfyweb-app-ip": ",".join(settings.app_egress_ip),
        "comfyweb-keys": keys,
        "comfyweb-idle-minutes": f"{settings.idle_minutes:g}",
        "comfyweb-comfyui": settings.comfyui_release or "",
        "comfyweb-comfyui-git": settings.comfyui_git or "",
        "comfyweb-command": "",
        "auth_user": "",
        "auth_pass": "",
    }
    metadata = {key: value for key, value in from_settings.items() if value} | ours
    return Policy(
        metadata=metadata,
        running_metadata=RUNNING_METADATA,
        max_run=_max_run(settings),
        session_cap=timedelta(hours=settings.session_cap_hours),
        drain=timedelta(minutes=settings.drain_minutes),
    )


def place(settings: Settings) -> Place:
    """Return where the machine is and whether the page may frame its ComfyUI."""
    url = settings.comfyui_address
    words = _why_not_framed(settings.public_url, url)
    return Place(
        project=settings.gcp_project,
        zone=settings.gce_zones[0],
        instance=settings.gce_instance,
        comfyui_url=url,
        embed=not words,
        embed_words=words,
        same_site=settings.same_site,
        idle_minutes=settings.idle_minutes,
        drain_minutes=settings.drain_minutes,
        session_cap=timedelta(hours=settings.session_cap_hours),
        notices=settings.warnings,
        host_version=version_of(bundle.script()),
        host_renewed=not settings.startup_script_url,
        name="" if settings.comfyui_url else settings.comfyui_domain or "",
        proxies=cloudflare.SHIPPED,
        cloudflare=settings.cf_cert_path is not None,
    )


def _max_run(settings: Settings) -> timedelta:
    """Return Compute Engine's own limit for a run: the cap and a quarter of an hour, in whole quarters."""
    limit = timedelta(hours=settings.session_cap_hours) + AFTER_CAP
    return limit - limit % AFTER_CAP


def _why_not_framed(page: str, comfyui: str) -> str:
    """Return why ComfyUI can't be shown inside the page, or nothing (docs/architecture.md, Network truths)."""
    if host_of(page) in LOOPBACK and comfyui and host_of(comfyui) in LOOPBACK:
        return ""
    if not comfyui.startswith("https://"):
        insecure = "ComfyUI's address is plain http, so anybody on the way can read and change what you see. "
        framing = "A page that came over https can't show it inside. " if page.startswith("https://") else ""
        return f"{insecure}{framing}Open it in a tab of its own, or give it a name and a certificate (COMFYUI_DOMAIN)."
    if not page.startswith("https://"):
        return "This page is not on https, so ComfyUI's login can't be kept inside it. Open it in a tab of its own."
    return ""
