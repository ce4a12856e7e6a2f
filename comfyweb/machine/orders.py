"""What the host is asked to do by way of Google while HTTPS can't be had: which orders wait, and for how long.

They lie in the machine's metadata, signed, until the host acknowledges them. Each says what an HTTP call would.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

METADATA_KEY = "comfyweb-command"
# The host refuses a list that is longer, as a whole.
AT_MOST = 20
REVOKE = "/_host/revoke"
# So that many logouts at once leave room for who wants the machine to stay or to stop.
REVOKES_AT_MOST = 12
# Each costs a call to Compute Engine, and real input in ComfyUI counts on the machine itself.
KEEP_ALIVE_EVERY = timedelta(minutes=2)
# Orders that couldn't be written are written again after this.
AGAIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One command. Of two `about` the same thing the newer counts, unless it is `added` to the one before."""

    method: str
    path: str
    about: str
    body: Mapping[str, object] = field(default_factory=dict[str, object])
    added: bool = False

    @property
    def is_revoke(self) -> bool:
        """Whether it ends a session."""
        return self.path == REVOKE


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An order that was signed: until when it is valid, and whether the host has taken it."""

    order: Order
    jti: str
    token: str
    since: datetime
    until: datetime
    taken: bool = False


def keep_alive() -> Order:
    """Count this moment as use."""
    return Order(method="POST", path="/_host/keep-alive", about="keep-alive")


def extend(minutes: float) -> Order:
    """Stay on for so many minutes more."""
    return Order(method="POST", path="/_host/extend", about="extend", body={"minutes": minutes}, added=True)


def drain(deadline: timedelta, *, stay: bool) -> Order:
    """Let no new prompt in, and power off when the others are done, at the latest after `deadline`."""
    body = {"deadline_seconds": max(0, round(deadline.total_seconds())), "stay": stay}
    return Order(method="POST", path="/_host/drain", about="drain", body=body)


def cancel_drain() -> Order:
    """Go on working after all."""
    return Order(method="DELETE", path="/_host/drain", about="drain")


def revoke(session: str) -> Order:
    """Kill the cookies and the open websockets of a session."""
    return Order(method="POST", path=REVOKE, about=f"revoke {session}", body={"session": session})


def live(waiting: tuple[Waiting, ...], now: datetime) -> tuple[Waiting, ...]:
    """Return those that are still valid. That a session was revoked holds as long as the host does."""
    return tuple(one for one in waiting if now < one.until or (one.taken and one.order.is_revoke))


def taken(waiting: tuple[Waiting, ...], acks: tuple[str, ...]) -> tuple[Waiting, ...]:
    """Note which the host has taken. That can be forged on the machine: it only ends the sending of them."""
    return tuple(replace(one, taken=one.taken or one.jti in acks) for one in waiting)


def is_told(waiting: tuple[Waiting, ...], order: Order, now: datetime) -> bool:
    """Say whether the host has been told the same, or will be: then it is not said again."""
    same = [one for one in waiting if one.order.about == order.about]
    if order.added or not same or same[-1].order.method != order.method:
        return False
    if order.about == "keep-alive":
        return not same[-1].taken or now - same[-1].since < KEEP_ALIVE_EVERY
    return True


def has_room(waiting: tuple[Waiting, ...], order: Order) -> bool:
    """Say whether one more may wait."""
    untaken = [one for one in waiting if not one.taken]
    revokes = sum(one.order.is_revoke for one in untaken)
    return len(untaken) < AT_MOST and not (order.is_revoke and revokes >= REVOKES_AT_MOST)


def joined(waiting: tuple[Waiting, ...], new: Waiting) -> tuple[Waiting, ...]:
    """Let it take the place of what was said before about the same thing."""
    kept = (one for one in waiting if new.order.added or one.order.about != new.order.about)
    return (*kept, new)
