"""What the machine is told: instance metadata, read in one call, and never taken from anybody but Google's server.

A proxy's error page, a captive portal or a half answer is no value: the status must be 200, the header
`Metadata-Flavor: Google` must be there, and the body must be a JSON object
(https://cloud.google.com/compute/docs/metadata/querying-metadata). The last good answer is kept on disk and serves
while the server is silent.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from vm_setup.base import files
from vm_setup.base.asking import AskError, Request, ask
from vm_setup.base.paths import Paths
from vm_setup.base.places import LAST_GOOD, address
from vm_setup.host import allowed
from vm_setup.host.allowed import Allowed
from vm_setup.host.reading import json_value, mapping

PATH = "/computeMetadata/v1/instance/attributes/?recursive=true&alt=json"
TIMEOUT_SECONDS = 3.0
_LIMIT = 2_000_000
# Of the entries of one key: a web page that came into it has thousands of words.
_MOST_TOLD = 3

Attributes = Mapping[str, str]

DEFAULT_GIT = "https://github.com/comfyanonymous/ComfyUI.git"
DEFAULT_RELEASE = "v0.33.0"
# Without these pins pip takes a torchaudio that was built for another CUDA than torch, and ComfyUI dies at import.
DEFAULT_TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
_RELEASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")
_GIT = re.compile(r"(https?|git|ssh|file)://[^\s'\"]{1,500}")
_INDEX = re.compile(r"(https?|file)://[^\s'\"]{1,500}")
# Let's Encrypt; another server that speaks ACME (RFC 8555) can take its place.
DEFAULT_ACME_SERVER = "https://acme-v02.api.letsencrypt.org/directory"
_DOMAIN = re.compile(r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])")
_EMAIL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+'-]{0,63}@[A-Za-z0-9.-]{1,190}\.[A-Za-z0-9-]{2,60}")
_SERVER = re.compile(r"https://[A-Za-z0-9.\[\]:-]{1,253}(/[\w./~%?=&-]{0,300})?")
_STORED = re.compile(r"(gs://[a-z0-9][a-z0-9._-]{1,220}/\S{1,1000}|https://[A-Za-z0-9.-]{1,253}(:\d{1,5})?/\S{1,2000})")
_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(==|>=|<=|~=|<|>)[A-Za-z0-9.+*!_-]+")


class Silent(Exception):
    """The metadata server said nothing that can be believed; the text says what it did instead."""


def fetch(base: str = "") -> Attributes:
    """Read the attributes once, from the server at `base` (default: Google's). Raises `Silent`."""
    request = Request(path=PATH, headers={"Metadata-Flavor": "Google"}, seconds=TIMEOUT_SECONDS, limit=_LIMIT)
    try:
        answer = ask(base or address(), request)
    except AskError as error:
        raise Silent(f"the metadata server does not answer ({error})") from error
    if answer.status != HTTPStatus.OK:
        raise Silent(f"the metadata server answers {answer.status}")
    if answer.headers.get("metadata-flavor") != "Google":
        raise Silent("something that is not the metadata server answers at its address")
    found = mapping(json_value(answer.body, limit=_LIMIT))
    if found is None:
        raise Silent("the metadata server's answer is no JSON object")
    return {name: value for name, value in found.items() if isinstance(value, str)}


def last_good(paths: Paths) -> Attributes | None:
    """Return what was read in an earlier boot, or None when nothing ever was."""
    saved = mapping(files.read_object(paths.state / LAST_GOOD).get("attributes"))
    return None if saved is None else {name: value for name, value in saved.items() if isinstance(value, str)}


def keep(paths: Paths, attributes: Attributes) -> None:
    """Keep what was read for a boot in which nobody answers; without what is long, or of one moment only.

    For root alone: ComfyUI's user can't read it at the metadata server either, and who knows what others put there.
    """
    kept = {k: v for k, v in attributes.items() if k not in {"startup-script", "comfyweb-command"}}
    with files.locked(paths.runtime / "metadata.lock"):  # the keeper may have visitors put right at the same time
        if last_good(paths) != kept:
            files.write(paths.state / LAST_GOOD, json.dumps({"attributes": kept}), mode=0o600)


def with_patience(
    read: Callable[[], Attributes], *, seconds: float, now: Callable[[], float], sleep: Callable[[float], None]
) -> Attributes:
    """Read, again and again with longer waits, for so many seconds. Raises the last `Silent`."""
    until, wait = now() + seconds, 0.1
    while True:
        try:
            return read()
        except Silent:
            if now() + wait > until:
                raise
        sleep(wait)
        wait = min(wait * 2, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for: a ComfyUI, and how it is reached. `wrong` has a sentence for each value that can't be meant.

    `origin_pair` are the addresses of a Cloudflare origin certificate and of its key; with them Cloudflare's proxy is
    in front of the machine. `allowed` are the visitors that may come, `app` the addresses that the app calls from.
    """

    release: str = DEFAULT_RELEASE
    git: str = DEFAULT_GIT
    torch: tuple[str, ...] = DEFAULT_TORCH
    indexes: tuple[str, ...] = ()
    domain: str = ""
    email: str = ""
    origin_pair: tuple[str, str] | None = None
    acme_server: str = DEFAULT_ACME_SERVER
    allowed: Allowed = field(default_factory=Allowed)
    app: Allowed = field(default_factory=Allowed)
    wrong: tuple[str, ...] = ()

    @classmethod
    def read(cls, attributes: Attributes) -> "Wanted":
        """Read all keys that concern the set-up. One that can't be meant counts as unset, and is told."""
        wrong: list[str] = []

        def one(key: str, pattern: "re.Pattern[str]", default: str, *, of: Callable[[str], str] = str.strip) -> str:
            value = of(attributes.get(key, ""))
            if not value or pattern.fullmatch(value):
                return value or default
            instead = f"{default} is used" if default else "it is ignored"
            wrong.append(f"The metadata key {key} holds no such thing ({value[:60]!r}); {instead}.")
            return default

        def several(key: str, pattern: "re.Pattern[str]", default: tuple[str, ...]) -> tuple[str, ...]:
            values = tuple(attributes.get(key, "").split())
            if not values or all(pattern.fullmatch(value) for value in values):
                return values or default
            wrong.append(f"The metadata key {key} is not understood and is ignored.")
            return default

        def visitors(key: str) -> Allowed:
            found = allowed.read(attributes.get(key, ""))
            told = found.wrong[:_MOST_TOLD]
            wrong.extend(f"{key}: {entry!r} lets nobody in, because {why}." for entry, why in told)
            if more := len(found.wrong) - len(told):
                wrong.append(f"{key}: {more} more entries let nobody in.")
            return found

        def pair() -> tuple[str, str] | None:
            chain, key = (one(name, _STORED, "") for name in ("cf_cert_path", "cf_key_path"))
            if chain and key:
                return chain, key
            if chain or key:
                wrong.append("Of cf_cert_path and cf_key_path only one is there; it is ignored. Set both.")
            return None

        return cls(
            release=one("comfyweb-comfyui", _RELEASE, DEFAULT_RELEASE),
            git=one("comfyweb-comfyui-git", _GIT, DEFAULT_GIT),
            torch=several("comfyweb-comfyui-torch", _PIN, DEFAULT_TORCH),
            indexes=several("comfyweb-comfyui-index", _INDEX, ()),
            domain=one("domain_name", _DOMAIN, "", of=_host_name),
            email=one("ssl_email", _EMAIL, ""),
            origin_pair=pair(),
            acme_server=one("comfyweb-acme-server", _SERVER, DEFAULT_ACME_SERVER),
            allowed=visitors(allowed.PEOPLE),
            app=visitors(allowed.APP),
            wrong=tuple(wrong),
        )


def _host_name(text: str) -> str:
    """Return a host name as certificates have it: in small letters, without the last dot, other scripts as ASCII."""
    name = text.strip().rstrip(".").lower()
    try:
        return name if name.isascii() else name.encode("idna").decode("ascii")
    except UnicodeError:
        return name
