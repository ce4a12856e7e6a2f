"""The life of one process of the app: it can be killed between any two things that it does, and it can stand still."""

import asyncio
from collections.abc import Callable


class Killed(BaseException):
    """The process is dead. Not an Exception: nothing in it may go on."""


class Process:
    """`step` is called before everything that reaches out: a transaction, a call to Google, a call to the host."""

    def __init__(self, waited: Callable[[float], None]) -> None:
        self._waited = waited
        self.alive = True
        self.steps_left: int | None = None
        self._stands_still_until = 0.0

    def stand_still(self, seconds: float) -> None:
        """Do nothing for that long, as a process whose computer sleeps or is starved."""
        self._stands_still_until = asyncio.get_running_loop().time() + seconds

    @property
    def stands_still(self) -> bool:
        """Whether it does nothing at the moment."""
        return asyncio.get_running_loop().time() < self._stands_still_until

    async def step(self) -> None:
        """Pass this point, unless the process is killed here. Raises Killed."""
        began = asyncio.get_running_loop().time()
        if self.alive and self.stands_still:
            while self.alive and self.stands_still:
                await asyncio.sleep(self._stands_still_until - asyncio.get_running_loop().time())
            self._waited(began)
        if self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left <= 0:
                self.alive = False
        if not self.alive:
            raise Killed
