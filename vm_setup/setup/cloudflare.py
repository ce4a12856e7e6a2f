"""Cloudflare's networks as this machine knows them: the bundle's, or newer ones that Cloudflare has published."""

import json
from collections.abc import Callable
from datetime import datetime, timezone

from vm_setup.base import files
from vm_setup.base.paths import Paths
from vm_setup.host import cloudflare
from vm_setup.host.allowed import Network
from vm_setup.setup.system import LOG, Trouble

KEPT = "cloudflare-networks.json"
_FRESH_SECONDS = 30 * 86400.0


def networks(paths: Paths) -> tuple[Network, ...]:
    """Return the newest list that is known. A kept one that is spoilt, or older than the bundle's, doesn't count."""
    kept = files.read_object(paths.state / KEPT)
    if str(kept.get("date", "")) <= cloudflare.DATE:
        return cloudflare.SHIPPED
    try:
        return cloudflare.read(str(kept.get("networks", "")))
    except ValueError:
        return cloudflare.SHIPPED


def refresh(paths: Paths, *, wall: float, fetch: Callable[[str], str]) -> bool:
    """Ask Cloudflare for its list when it has not been asked for 30 days; say whether another one is in force now."""
    today = datetime.fromtimestamp(wall, tz=timezone.utc).strftime("%Y-%m-%d")
    asked = files.read_object(paths.state / KEPT).get("date", "")
    if str(asked) > datetime.fromtimestamp(wall - _FRESH_SECONDS, tz=timezone.utc).strftime("%Y-%m-%d"):
        return False
    known = networks(paths)
    try:
        found = cloudflare.read("\n".join(fetch(address) for address in cloudflare.ADDRESSES))
    except (Trouble, ValueError) as error:
        LOG.warning("Cloudflare's own list of its networks was not taken: %s.", error)
        return False
    files.write(paths.state / KEPT, json.dumps({"date": today, "networks": " ".join(map(str, found))}), durable=False)
    return set(found) != set(known)
