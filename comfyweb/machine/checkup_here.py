"""What `python -m comfyweb doctor` finds on this side: name, certificate, framing, secrets, the database, the bundle.

Pure, like `checkup`, which has the other half.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from comfyweb.machine.checkup import Finding, State, not_checked, ok
from comfyweb.machine.decide import UP
from comfyweb.machine.model import Certificate, MachineSeen, NameSeen
from comfyweb.machine.reach import SETTLING, Networks, covers, hidden, name_words

# A certificate of Let's Encrypt is renewed 30 days before its end.
RENEWED_BY_NOW = timedelta(days=14)
LITTLE_BYTES, NO_BYTES = 200 * 2**20, 20 * 2**20


def name(
    seen: NameSeen, machine: MachineSeen | None, proxies: Networks, *, origin_certificate: bool, keeps: bool | None
) -> Finding:
    """Judge where ComfyUI's name leads. `keeps`: the machine has the same address when it is on."""
    if seen.addresses is None:
        return not_checked("name", f"No name server told of {seen.name}.", "Check this server's DNS.")
    where = ", ".join(seen.addresses)
    on = machine is not None and machine.status in UP
    address = machine.external_ip if machine is not None and (on or keeps) else ""
    # It is asked about as if the machine had been on for a while: a name that doesn't follow it is what's looked for.
    words = name_words(seen, address, proxies, up_for=SETTLING, heard=False, origin_certificate=origin_certificate)
    if words and not (hidden(seen.addresses, proxies) and not on):
        return Finding(check="name", state=State.FAILED if seen.addresses else State.WARNING, words=words, todo="")
    if not seen.addresses:
        todo = "Make an A record with the machine's address; a reserved static one keeps it right."
        return Finding(check="name", state=State.WARNING, words=f"{seen.name} has no address in the DNS.", todo=todo)
    if hidden(seen.addresses, proxies):
        return ok("name", f"{seen.name} leads to Cloudflare ({where}).")
    if not address:
        return not_checked("name", f"{seen.name} leads to {where}; the machine has no address to compare while off.")
    return ok("name", f"{seen.name} leads to {where}, the machine.")


def certificate(found: Certificate, name: str, now: datetime) -> Finding:
    """Judge the certificate that is served at ComfyUI's name. `mode` is whoever signed it."""
    until = f" until {found.until:%-d %B %Y}" if found.until else ""
    facts = f"for {found.name or 'no name'} by {found.mode or 'nobody known'}{until}"
    if found.until is not None and found.until <= now:
        return _ill(f"The certificate has run out ({facts}).", "See docs/host.md, Certificates.")
    if not covers(found.name, name):
        return _ill(f"The certificate is {facts}, not for {name}.", "See docs/host.md, Certificates.")
    if not found.trusted:
        todo = "Set SSL_EMAIL for Let's Encrypt, or switch Cloudflare's proxy on for an origin certificate of theirs."
        return _ill(f"Browsers don't trust the certificate ({facts}).", todo)
    if found.until is not None and found.until - now < RENEWED_BY_NOW:
        return Finding(
            check="certificate",
            state=State.WARNING,
            words=f"The certificate ends soon ({facts}), and should have been renewed by now.",
            todo="Leave the machine on for a day, or start it: it renews while it is on. Its journal says why not.",
        )
    return ok("certificate", facts)


def _ill(words: str, todo: str) -> Finding:
    return Finding(check="certificate", state=State.FAILED, words=words, todo=todo)


def framing(words: str, page: str, comfyui: str) -> Finding:
    """Judge whether the page can show ComfyUI inside, in every browser. `words` say why not."""
    if words:
        todo = "Give both an https name of one domain: PUBLIC_URL and COMFYUI_DOMAIN."
        return Finding(check="framing", state=State.WARNING, words=words, todo=todo)
    return ok("framing", f"{page} and {comfyui} are one site.")


def secrets(*, weak_hash: bool, signing: int, loose_files: Sequence[str]) -> Finding:
    """Judge what the settings have already accepted. `signing` is how many secrets sign or verify sessions."""
    words: list[str] = []
    todo: list[str] = []
    if loose_files:
        words.append(f"Other users of this computer can read {', '.join(loose_files)}.")
        todo.append(f"chmod 600 {' '.join(loose_files)}")
    if weak_hash:
        words.append("The password's argon2 hash costs less than is recommended (19 MiB and 2 passes, says OWASP).")
        todo.append("Make it anew with more.")
    if signing > 1:
        words.append(f"JWT_SECRET holds {signing} secrets, as while one is being replaced.")
        todo.append("Drop the old ones a day after the new one came first.")
    if words:
        return Finding(check="secrets", state=State.WARNING, words=" ".join(words), todo="; ".join(todo))
    return ok("secrets", "Password and secrets are long enough, and no example.")


def database(trouble: str, free_bytes: int | None) -> Finding:
    """Judge the ledger's place; `free_bytes` is None where the disk is another computer's."""
    if trouble:
        todo = "Check DATABASE_URL, and that comfyweb's user may write there."
        return Finding(check="database", state=State.FAILED, words=trouble, todo=todo)
    if free_bytes is None:
        return ok("database", "It answers and takes writes.")
    words = f"It takes writes; its disk has {free_bytes / 2**20:.0f} MB free."
    if free_bytes >= LITTLE_BYTES:
        return ok("database", words)
    state = State.FAILED if free_bytes < NO_BYTES else State.WARNING
    return Finding(check="database", state=state, words=words, todo="Make room: without it nothing can be started.")


def bundle(version: str, length: int, longest: int, stored: str | None) -> Finding:
    """Judge the host software that the app brings. `stored` is the version at STARTUP_SCRIPT_URL, None without one."""
    own = f"Host software {version}, {length} bytes of {longest}"
    if stored is None:
        return ok("host-bundle", f"{own}, inline in the machine's metadata.")
    if stored == version:
        return ok("host-bundle", f"{own}; the same is at STARTUP_SCRIPT_URL.")
    there = f"host software {stored}" if stored else "something else than comfyweb's host software"
    return Finding(
        check="host-bundle",
        state=State.WARNING if stored else State.FAILED,
        words=f"{own}; at STARTUP_SCRIPT_URL is {there}.",
        todo="make host-bundle, and put .make/host-bundle.sh there.",
    )
