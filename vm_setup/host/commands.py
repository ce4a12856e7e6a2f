"""What the app may ask of the host, whichever way it comes: by HTTPS, or as signed commands in metadata.

The metadata key `comfyweb-command` is a JSON list of JWTs of purpose `command`. Each says what the HTTP call
would: `htm` the method, `htu` the path, `body` the JSON body itself. They are valid for 10 minutes and obeyed once;
the heartbeat acknowledges them by `jti`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from vm_setup.host.reading import items, json_value, mapping, number, word
from vm_setup.host.tokens import WORD_LIMIT, Claims, Memory, Purpose, Refusal, Trust, Verify, check

METADATA_KEY = "comfyweb-command"
AT_MOST = 20
LIST_LIMIT = 262_144  # Compute Engine lets no metadata value be longer
BODY_LIMIT = 65536
LONGEST_EXTENSION_MINUTES = 24 * 60.0
LONGEST_DRAIN_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Count this moment as use."""


@dataclass(frozen=True, slots=True)
class Extend:
    """Stay on that many minutes longer than now foreseen."""

    minutes: float


@dataclass(frozen=True, slots=True)
class StartDrain:
    """Let no new prompt in, and power off when the others are done (unless `stay`) or after `seconds`."""

    seconds: float
    stay: bool = False


@dataclass(frozen=True, slots=True)
class CancelDrain:
    """Go on working after all."""


@dataclass(frozen=True, slots=True)
class Revoke:
    """Kill the cookies and the open websockets of a session."""

    session: str


Command = KeepAlive | Extend | StartDrain | CancelDrain | Revoke


@dataclass(frozen=True, slots=True)
class Order:
    """A command that the app signed, to be obeyed now. `claims.jti` is what to acknowledge."""

    command: Command
    claims: Claims


def read_command(method: object, path: object, body: Mapping[str, object]) -> Command | None:
    """Return the command that a call of `path` with that JSON body means; None when it means none."""
    match method, path:
        case "POST", "/_host/keep-alive":
            return KeepAlive()
        case "POST", "/_host/extend":
            minutes = number(body.get("minutes"))
            return Extend(minutes) if minutes is not None and 0 < minutes <= LONGEST_EXTENSION_MINUTES else None
        case "POST", "/_host/drain":
            seconds = number(body.get("deadline_seconds"))
            if seconds is None or not 0 <= seconds <= LONGEST_DRAIN_SECONDS:
                return None
            return StartDrain(seconds, stay=body.get("stay") is True)
        case "DELETE", "/_host/drain":
            return CancelDrain()
        case "POST", "/_host/revoke":
            session = word(body.get("session"), limit=WORD_LIMIT)
            return Revoke(session) if session is not None else None
        case _:
            return None


def read_body(raw: bytes) -> Mapping[str, object]:
    """Return the JSON object of a call's body; an empty one when it has none or something else."""
    return mapping(json_value(raw, limit=BODY_LIMIT)) or {}


def take(
    value: object, *, trust: Trust, verify: Verify, memory: Memory, now: float, booted: float = -math.inf
) -> list[Order | Refusal]:
    """Return what the metadata value orders, oldest first, each order once; refusals are for the log.

    A command that was obeyed before is passed over in silence: it stays in metadata until the app sees it acknowledged.
    What was signed (`iat`) before this boot, of which nobody remembers whether it was obeyed, is not obeyed again, but
    for a revoke. A list that is too long is refused as a whole, since nobody can say which of it was meant.
    """
    if value is None or value == "":
        return []
    tokens = items(json_value(value, limit=LIST_LIMIT))
    if tokens is None:
        return [Refusal.MALFORMED]
    if len(tokens) > AT_MOST:
        return [Refusal.TOO_MANY]
    taken = [_take_one(token, trust, verify, memory, now) for token in tokens]
    return [_of_this_boot(one, booted) for one in taken if one is not Refusal.REPEATED]


def _of_this_boot(one: Order | Refusal, booted: float) -> Order | Refusal:
    if isinstance(one, Refusal) or isinstance(one.command, Revoke):
        return one
    signed = number(one.claims.rest.get("iat"))
    return Refusal.EARLIER_BOOT if signed is not None and signed < booted else one


def _take_one(token: object, trust: Trust, verify: Verify, memory: Memory, now: float) -> Order | Refusal:
    claims = check(token, purpose=Purpose.COMMAND, trust=trust, verify=verify, now=now)
    if isinstance(claims, Refusal):
        return claims
    refused = memory.spend(claims, now=now)
    if refused:
        return refused
    body = mapping(claims.rest.get("body")) or {}
    command = read_command(claims.rest.get("htm"), claims.rest.get("htu"), body)
    return Order(command, claims) if command else Refusal.UNKNOWN_COMMAND
