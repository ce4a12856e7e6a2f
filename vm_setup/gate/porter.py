"""Who may come in: tickets, cookies and revokes of one boot, held together. No I/O; time comes in by `now`."""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace

from vm_setup.host import tokens
from vm_setup.host.cookies import Ledger, Pass, values
from vm_setup.host.gate import Closed, Told, closed_to
from vm_setup.host.messages import Now
from vm_setup.host.reading import mapping


class Porter:
    """The judgement of the gate. `saved` is what `to_json` returned, in this boot or another, or nothing.

    Without `verify` no signature can be checked, so nobody comes in.
    """

    def __init__(
        self, *, boot_id: str, verify: tokens.Verify | None, now: Callable[[], Now], saved: object = None
    ) -> None:
        parts = mapping(saved) or {}
        self._verify = verify
        self._now = now
        self._ledger = Ledger.from_json(parts.get("cookies"), boot_id=boot_id)
        self._memory = tokens.Memory.from_json(parts.get("tokens"))
        self.told = Told()

    def to_json(self) -> dict[str, object]:
        """Return what has to be kept when the process restarts: no cookie that opens anything, only their digests."""
        return {"cookies": self._ledger.to_json(), "tokens": self._memory.to_json()}

    def hear(self, told: Told) -> None:
        """Take in what the keeper says: cookies of revoked sessions die here and now."""
        moment = self._now().wall
        for session, until in told.revoked.items():
            self._memory.revoke(session, until=until, now=moment)
            self._ledger.revoke(session)
        self.told = told

    def forget(self) -> None:
        """Let nobody new in, because the keeper's file is gone, until there is one again."""
        self.told = replace(self.told, at=None)

    def enter(self, ticket: str) -> str | tokens.Refusal | Closed:
        """Let a browser in by its ticket: return the value of its new cookie, or why not."""
        moment = self._now()
        if self._verify is None or not self.told.is_fresh(moment.boot):
            return Closed.SILENT
        claims = tokens.admit(
            ticket,
            trust=self.told.trust,
            verify=self._verify,
            memory=self._memory,
            now=moment.wall,
            booted=moment.wall - moment.boot,
        )
        if isinstance(claims, tokens.Refusal):
            return claims
        value = secrets.token_urlsafe(32)
        self._ledger.add(value, session=claims.session, session_exp=claims.session_exp, now=moment.wall)
        return value

    def holder(self, cookie_headers: Iterable[str]) -> Pass | None:
        """Return the pass that a request's cookies hold, and count this as its use."""
        return self._ledger.use(values(cookie_headers), now=self._now().wall)

    def closed_to(self, holder: Pass | None, *, method: str, path: str) -> Closed | None:
        """Return why a request of `holder` may not go to ComfyUI; None when it may."""
        return closed_to(holder, method=method, path=path, told=self.told)

    def still_open(self, digest: str) -> bool:
        """Whether an open websocket may go on; if so, it is a use of its cookie."""
        return self._ledger.touch(digest, now=self._now().wall) is not None

    def tick(self) -> None:
        """Let a running job count as a use of every cookie."""
        if self.told.busy:
            self._ledger.touch_all(now=self._now().wall)
