"""What stands between a browser and ComfyUI: where its name points, and which certificate the machine has.

Pure, and silent wherever nobody can know: an alarm that is false once is not read when it is true.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from comfyweb.machine.model import Certificate, NameSeen

Networks = Sequence[IPv4Network | IPv6Network]

# A record that follows the machine's address is changed at its start, and a proxy needs the host to be up.
SETTLING = timedelta(minutes=2)
# What Cloudflare's proxy takes in one request on its small plans (its page "Upload limits").
CLOUDFLARE_UPLOAD_MB = 100

_CERTIFICATES = {
    "self-signed": "made by the machine itself",
    "letsencrypt": "Let's Encrypt",
    "cloudflare": "Cloudflare origin certificate",
}


def hidden(addresses: Iterable[str], proxies: Networks) -> bool:
    """Tell whether these are a proxy's addresses, behind which the machine's own can't be seen."""
    found = [_read(address) for address in addresses]
    return bool(found) and all(ip is not None and any(ip in network for network in proxies) for ip in found)


def name_words(
    name: NameSeen, ip: str, proxies: Networks, *, up_for: timedelta, heard: bool, origin_certificate: bool
) -> str:
    """Say that ComfyUI's name doesn't lead to the machine at `ip`, and what to do; nothing when it does or may.

    `up_for` is how long the machine is on. While its host is `heard` by that name it leads there, at least from here.
    With an `origin_certificate` browsers get in by way of Cloudflare alone.
    """
    if name.addresses is None or not ip or up_for < SETTLING:
        return ""
    behind = hidden(name.addresses, proxies)
    if behind:
        return "" if heard or name.reached is not False else _unreached(name, ip)
    own, others = ip in name.addresses, _public(name.addresses, ip)
    record = f"an A record with {ip}, the machine's address"
    if not name.addresses:
        todo = f"Make {record}{', proxied by Cloudflare' if origin_certificate else ''}."
        return "" if heard else f"{name.name} has no address in the DNS. {todo}"
    if own and others:
        return (
            f"{name.name} leads to {ip}, the machine, and also to {_listed(others)}, where some browsers go instead. "
            "Remove the other records."
        )
    if heard or not (own or others):
        return ""
    if own:
        return (
            f"{name.name} leads straight to the machine, but the certificate it has is one that only Cloudflare "
            "trusts. Switch the proxy on for its record at Cloudflare."
            if origin_certificate
            else ""
        )
    if origin_certificate:
        return f"{name.name} leads to {_listed(others)}, not to Cloudflare. It needs {record}, proxied by Cloudflare."
    return (
        f"{name.name} leads to {_listed(others)}, but the machine is at {ip}. Change its A record to {ip}; a reserved "
        "static address keeps it right. Who has looked it up goes to the old one for some minutes more."
    )


def _unreached(name: NameSeen, ip: str) -> str:
    return (
        f"{name.name} is behind Cloudflare, which does not get to the machine: {name.reached_words}. Its A record at "
        f"Cloudflare must say {ip}, the machine's address."
    )


def unknown_name_words(name: str, instance: str) -> str:
    """Say that the machine goes by a `name` that this app wasn't told; nothing when it has none."""
    if not name:
        return ""
    return (
        f"The machine's metadata give ComfyUI the name {name}, by which alone it is reached then, and this app was not "
        f"told. Set COMFYUI_DOMAIN to {name}; or remove the key domain_name from the metadata of {instance}, then stop "
        "and start it."
    )


def certificate_facts(certificate: Certificate) -> str:
    """Name the certificate that the machine has; empty when it has none."""
    kind = _CERTIFICATES.get(certificate.mode, certificate.mode if certificate.mode != "none" else "")
    until = f", until {_day(certificate.until)}" if kind and certificate.until else ""
    return f"{kind}{until}"


def certificate_words(certificate: Certificate | None, name: str, now: datetime) -> str:
    """Say why browsers don't trust the machine's certificate; nothing when they do, or it needs none."""
    if certificate is None or not name:
        return ""
    facts = certificate_facts(certificate)
    if not facts:
        return f"The machine has no certificate for {name} yet, so ComfyUI can't be reached by https."
    apart = "Open ComfyUI in a tab of its own; the browser warns of it there, and does not show it inside this page."
    if certificate.until is not None and certificate.until <= now:
        return f"The machine's certificate for {certificate.name or name} ({facts}) has run out. {apart}"
    if certificate.name and not covers(certificate.name, name):
        return f"The machine's certificate ({facts}) is for {certificate.name}, not for {name}. {apart}"
    if certificate.trusted:
        return ""
    if certificate.mode == "self-signed":
        return (
            f"For now the machine has a certificate for {name} that it made itself. Browsers don't trust that. {apart} "
            "It takes a trusted one as soon as it can have it."
        )
    return f"Browsers don't trust the certificate that the machine has for {name} ({facts}). {apart}"


def covers(pattern: str, name: str) -> bool:
    """Tell whether a certificate for `pattern`, a name or one with `*` for its first label, is good for `name`."""
    pattern, name = pattern.lower().rstrip("."), name.lower().rstrip(".")
    return pattern == name or (pattern.startswith("*.") and pattern[2:] == name.partition(".")[2])


def _public(addresses: Iterable[str], ip: str) -> list[str]:
    """Return the addresses that aren't the machine's. One that isn't public is what an inner name server says."""
    return [text for text in addresses if text != ip and (read := _read(text)) is not None and read.is_global]


def _read(address: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(address)
    except ValueError:
        return None


def _listed(addresses: Sequence[str]) -> str:
    return " and ".join([", ".join(addresses[:-1]), addresses[-1]] if len(addresses) > 1 else addresses)


def _day(at: datetime) -> str:
    return f"{at:%-d %B %Y}"
