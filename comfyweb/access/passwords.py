"""Tells whether somebody knows the password, at the same cost whatever they sent.

Argon2 takes tens of milliseconds and 64 MiB on purpose. So it runs in two threads of its own, off the event loop, and
few may wait for them: a flood of guesses costs neither the loop's time nor the machine's memory.
"""

import asyncio
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
        self._inside = 0

    async def matches(self, candidate: object) -> bool:
        """Whether `candidate` is the password. What can't be one (no text, over 1024 characters) costs as much.

        Raises Busy when too many wait already.
        """
        if self._inside >= AT_ONCE + IN_LINE:
            raise Busy
        self._inside += 1
        checking = asyncio.get_running_loop().run_in_executor(self._threads, self._check, candidate)
        checking.add_done_callback(self._leave)
        return await asyncio.shield(checking)  # a client that goes away doesn't free its place before its work is done

    def close(self) -> None:
        """Let the threads end; nothing can be asked afterwards."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _leave(self, _: object) -> None:
        self._inside -= 1

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
