"""What the keeper tells the gate, by the file /run/comfyweb/gate.json, and what the gate makes of a request.

The keeper knows the machine, the gate knows who came in. The file tells no secret: public keys, sessions that are over.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address

from vm_setup.host import drain
from vm_setup.host.cookies import Pass
from vm_setup.host.reading import mapping, number, word
from vm_setup.host.tokens import WORD_LIMIT, Trust, read_keys

FILE = "gate.json"
EVERY_SECONDS = 5.0
FRESH_SECONDS = 30.0
_ORIGIN_LIMIT = 300
_SOURCES = int(IPv4Address("127.128.0.0"))
_SOURCE_BITS = 22


class Closed(str, Enum):
    """Why a request goes no further; the names are those of nginx's pages."""

    WARMING = "warming"
    STRANGER = "stranger"
    DRAINING = "draining"
    STAYING = "staying"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the keeper said last, `at` that second of the boot's clock. Before it has said anything nobody is let in.

    `revoked` maps sessions to when they would have ended by themselves; `stays`, of a drain: see `drain.Drain`.
    """

    at: float | None = None
    trust: Trust = field(default_factory=Trust)
    revoked: Mapping[str, float] = field(default_factory=dict[str, float])
    ready: bool = False
    busy: bool = False
    draining: bool = False
    stays: bool = False

    def is_fresh(self, boot: float) -> bool:
        """Whether the keeper lives. A revoke that a dead one can't tell of must not be passed by with a ticket."""
        return self.at is not None and boot - self.at < FRESH_SECONDS

    def to_json(self) -> dict[str, object]:
        """Return what the file holds."""
        return {
            "at": self.at,
            "issuer": self.trust.issuer,
            "audience": self.trust.audience,
            "keys": {"keys": list(self.trust.keys.values())},
            "revoked": dict(self.revoked),
            "ready": self.ready,
            "busy": self.busy,
            "draining": self.draining,
            "stays": self.stays,
        }

    @classmethod
    def from_json(cls, said: object) -> "Told":
        """Read what `to_json` returned. What isn't that lets nobody in."""
        parts = mapping(said) or {}
        revoked: dict[str, float] = {}
        for session, value in (mapping(parts.get("revoked")) or {}).items():
            until = number(value)
            if until is not None and word(session, limit=WORD_LIMIT):
                revoked[session] = until
        trust = Trust(
            issuer=word(parts.get("issuer"), limit=_ORIGIN_LIMIT) or "",
            audience=word(parts.get("audience"), limit=_ORIGIN_LIMIT) or "",
            keys=read_keys(json.dumps(parts.get("keys"))),
        )
        return cls(
            at=number(parts.get("at")),
            trust=trust,
            revoked=revoked,
            ready=parts.get("ready") is True,
            busy=parts.get("busy") is True,
            draining=parts.get("draining") is True,
            stays=parts.get("stays") is True,
        )


def closed_to(holder: Pass | None, *, method: str, path: str, told: Told) -> Closed | None:
    """Return why a request may not go to ComfyUI; None when it may. `holder` is who its cookie says it is."""
    if not told.ready:
        return Closed.WARMING
    if holder is None:
        return Closed.STRANGER
    if told.draining and drain.refuses(method, path):
        return Closed.STAYING if told.stays else Closed.DRAINING
    return None


def source_of(session: str) -> str:
    """Return the address of loopback from which nginx asks ComfyUI for a session: its requests are known by it."""
    digest = hashlib.sha256(session.encode("utf-8", "surrogatepass")).digest()
    return str(IPv4Address(_SOURCES + int.from_bytes(digest, "big") % (1 << _SOURCE_BITS)))
