"""Tells whether somebody knows the password, at the same cost whatever they sent.

Argon2 takes tens of milliseconds and 64 MiB on purpose. So it runs in two threads of its own, off the event loop, and
few may wait for them: a flood of guesses costs neither the loop's time nor the machine's memory.
"""

import asyncio
import bisect
import itertools
import logging
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from pydantic import SecretStr

log = logging.getLogger(__name__)

AT_ONCE = 2
IN_LINE = 64
LONGEST = 1024


class Busy(Exception):
    """So many wait for an answer that this one wasn't looked at."""


class Passwords:
    """Knows the password, or the argon2 hash it was given as. A plain one is hashed here once and not kept."""

    def __init__(self, password: SecretStr, *, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        text = password.get_secret_value()
        self._hash = text if text.startswith("$argon2") else self._hasher.hash(text)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="argon2")
        self._free = AT_ONCE
        self._line: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()

    async def matches(self, candidate: object, rank: int = 0) -> bool:
        """Whether `candidate` is the password. What can't be one (no text, over 1024 characters) costs as much.

        Those who wait are looked at by rank, lowest first, then as they came. Raises Busy when the line is full of
        others that go before.
        """
        if self._free:
            self._free -= 1
        else:
            await self._stand_in_line(rank)
        checking = asyncio.get_running_loop().run_in_executor(self._threads, self._check, candidate)
        checking.add_done_callback(self._call_next)
        return await asyncio.shield(checking)  # a client that goes away doesn't free its thread before its work is done

    def close(self) -> None:
        """Let the threads end; nothing can be asked afterwards."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _stand_in_line(self, rank: int) -> None:
        place = (rank, next(self._numbers), asyncio.get_running_loop().create_future())
        bisect.insort(self._line, place)
        if len(self._line) > IN_LINE:
            self._line.pop()[2].set_exception(Busy())
        try:
            await place[2]
        except asyncio.CancelledError:
            if place in self._line:
                self._line.remove(place)
            elif not place[2].cancelled() and place[2].exception() is None:
                self._call_next()  # it was called, and leaves
            raise

    def _call_next(self, _: object = None) -> None:
        while self._line:
            called = self._line.pop(0)[2]
            if not called.done():
                called.set_result(None)
                return
        self._free += 1

    def _check(self, candidate: object) -> bool:
        possible, text = _encoded(candidate)
        try:
            return self._hasher.verify(self._hash, text) and possible
        except VerifyMismatchError:
            return False
        except (VerificationError, InvalidHashError):
            log.exception("the password could not be checked")
            return False


def _encoded(candidate: object) -> tuple[bool, bytes]:
    if isinstance(candidate, str) and len(candidate) <= LONGEST:
        try:
            return True, candidate.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can carry
            pass
    return False, b""
