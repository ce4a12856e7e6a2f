"""A certificate by ACME (RFC 8555), from Let's Encrypt: certbot asks, and answers the authority's question by port 80.

certbot gets a signing request and puts the certificate where it is told: it keeps nothing but its account, so that
there is no state of its own that a power cut could spoil.
"""

import re
import secrets
import socket
from pathlib import Path

from vm_setup.base import files
from vm_setup.base.asking import AskError, Request, ask
from vm_setup.base.paths import Paths
from vm_setup.setup.metadata import Wanted
from vm_setup.setup.system import Done, System, Trouble

_LONGEST_SECONDS = 300.0
_QUESTION = ".well-known/acme-challenge"
_MOST_CHARACTERS = 400
_MOST_NONCES = 3
_MASKED = "AttributeError: can't set attribute"


class NotHere(Trouble):
    """The name does not lead to this machine yet: asking the authority would be in vain."""


def leads_here(paths: Paths, name: str, port: int = 80) -> None:
    """Ask this machine a question by its name, as the authority will. Raises `NotHere`."""
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotHere(f"The name {name} leads nowhere yet ({getattr(error, 'strerror', None) or error})") from error
    addresses = ", ".join(sorted({str(row[4][0]) for row in found}))
    token = f"comfyweb-{secrets.token_urlsafe(24)}"
    path = paths.acme / _QUESTION / token
    files.write(path, token, durable=False)
    try:
        answer = ask(f"http://{name}:{port}", Request(path=f"/{_QUESTION}/{token}", seconds=5.0, limit=4096))
    except AskError as error:
        raise NotHere(f"The name {name} leads to {addresses}, where nobody answers on port {port} ({error})") from error
    finally:
        files.remove(path)
    if answer.body.decode("ascii", "replace").strip() != token:
        raise NotHere(f"The name {name} leads to {addresses}, which is not this machine")


def signing_request(system: System, name: str, folder: Path) -> tuple[Path, Path]:
    """Make a key, and a request for a certificate with it; return their paths."""
    key, request = folder / "key.pem", folder / "request.pem"
    _openssl(system, name, folder, "-keyout", key, "-out", request)
    return key, request


def self_signed(system: System, name: str, folder: Path, *, days: int) -> tuple[Path, Path]:
    """Make a certificate that says for itself that it is for that name; return its path and the key's."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    _openssl(system, name, folder, "-x509", "-days", str(days), "-keyout", key, "-out", chain)
    return chain, key


def _openssl(system: System, name: str, folder: Path, *words: str | Path) -> None:
    """Have openssl make a new key (P-256) and what is asked for with it. Raises `Trouble`."""
    config = folder / "openssl.cnf"
    lines = (
        *("[req]", "prompt = no", "distinguished_name = who", "req_extensions = what", "x509_extensions = what"),
        *("[who]", f"CN = {name if len(name) <= 64 else 'comfyweb'}"),  # noqa: PLR2004 - as X.509 has it
        *("[what]", f"subjectAltName = DNS:{name}", "basicConstraints = critical,CA:FALSE"),
        *("keyUsage = critical,digitalSignature", "extendedKeyUsage = serverAuth", ""),
    )
    files.write(config, "\n".join(lines), durable=False)
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    done = system.run("openssl", "req", "-new", "-config", config, *curve, *words)
    if not done.ok:
        raise Trouble(f"No key could be made: {done.words}")


def ask_authority(system: System, wanted: Wanted, folder: Path) -> tuple[Path, Path]:
    """Get a certificate for the wanted name; return its path and the key's. Raises `Trouble` with the refusal."""
    key, request = signing_request(system, wanted.domain, folder)
    home, chain = system.paths.state / "letsencrypt", folder / "chain.pem"
    system.paths.acme.mkdir(parents=True, exist_ok=True)
    words = ""
    for _ in range(_MOST_NONCES):
        done = system.run(
            *("certbot", "certonly", "--non-interactive", "--agree-tos", "--no-eff-email", "--email", wanted.email),
            *("--server", wanted.acme_server, "--config-dir", home, "--work-dir", home / "work"),
            *("--logs-dir", home / "logs", "--max-log-backups", "5"),
            *("--webroot", "--webroot-path", system.paths.acme, "--csr", request),
            *("--cert-path", folder / "leaf.pem", "--chain-path", folder / "rest.pem", "--fullchain-path", chain),
            timeout=_LONGEST_SECONDS,
        )
        if done.ok and chain.exists():
            return chain, key
        words = _refusal(done, home / "logs/letsencrypt.log")
        if "nonce" not in words.lower():  # certbot itself tries a second one only
            break
    if re.search("account|key id", words, re.IGNORECASE):
        files.remove(home / "accounts")  # one that the authority, or a run that was cut off, has lost: made anew
    raise Trouble(f"{_authority(wanted)} gave no certificate for {wanted.domain}: {words}")


def _authority(wanted: Wanted) -> str:
    host = wanted.acme_server.split("/")[2]
    return "Let's Encrypt" if host.endswith(".letsencrypt.org") else host


def _refusal(done: Done, log: Path) -> str:
    """Return the authority's reason, in one line, from what certbot printed.

    With Python 3.11, certbot up to 2.2 prints a fault of its own in its place, and the reason is only in its log
    (https://github.com/certbot/certbot/issues/9539).
    """
    lines = [line.strip() for line in f"{done.out}\n{done.err}".splitlines() if line.strip()]
    if any(_MASKED in line for line in lines):
        logged = [line for line in files.read(log).splitlines() if line.startswith("acme.messages.Error:")]
        lines = [f"Detail: {logged[-1].rpartition('::')[2].strip()}"] if logged else lines
    details = [line.partition(":")[2].strip() for line in lines if line.startswith("Detail:")]
    if details:
        return details[0][:_MOST_CHARACTERS]
    noise = ("Saving debug log", "Ask for help", "See the logfile", "Plugins selected", "Requesting a cert")
    told = [line for line in lines if not line.startswith(noise)]
    return " ".join(told[-3:])[-_MOST_CHARACTERS:] or done.words
