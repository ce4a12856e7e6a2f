"""Tells somebody at the page that ComfyUI would turn him away, and what to add so that it doesn't."""

from collections.abc import Iterable

from comfyweb.machine.model import MachineMissing, MachineSeen
from comfyweb.machine.visitors import locked_out
from comfyweb.settings import Settings
from vm_setup.host import allowed

METADATA_KEY = "allowed_ip"


class Visitors:
    """Knows whom the machine lets in: `allowed`, or where that is empty whom somebody has put into its metadata.

    `proxied`: they come by way of Cloudflare. `known`: the addresses that the app sees are the visitors' own.
    """

    def __init__(self, *, allowed: Iterable[str] = (), proxied: bool = False, known: bool = True) -> None:
        self._allowed = ",".join(allowed)
        self._proxied = proxied
        self._known = known

    @classmethod
    def of(cls, settings: Settings) -> "Visitors":
        """Make it from the settings. A proxy that nobody told us of lends every visitor its own address."""
        known = settings.trusted_proxy_hops > 0 or not settings.public_url.startswith("https://")
        return cls(allowed=settings.allowed_ip, proxied=settings.cf_cert_path is not None, known=known)

    def words(self, address: str, machine: MachineSeen | MachineMissing | None) -> str:
        """Return what to tell the visitor at this address; empty when there is nothing to tell, or nobody knows."""
        if not self._known:
            return ""
        by_hand = machine.metadata.get(METADATA_KEY, "") if isinstance(machine, MachineSeen) else ""
        missing = locked_out(address, allowed.read(self._allowed or by_hand).networks, proxied=self._proxied)
        if not missing:
            return ""
        where = "ALLOWED_IP" if self._allowed else f"{METADATA_KEY} in the machine's metadata"
        restart = "start comfyweb again, then stop and start the machine" if self._allowed else "start the machine anew"
        return (
            f"You would lock yourself out: your address, {address}, is not in {where}, so ComfyUI does not let you in. "
            f"Add {missing} to it and {restart}."
        )
