"""News between the processes that serve one machine, by Redis: what the loop's one saw, and what the others ask.

Whether the machine is wanted on or off is in the database and never lost with it; an extension that a follower hands on
for a host that is heard by way of Google alone can be. Without news a process says on its page that it has none.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from comfyweb.machine.model import Observation, Phase
from comfyweb.machine.orders import Order

log = logging.getLogger(__name__)

# What was seen is told again this often, also when nothing changes, so that silence means something.
TOLD_EVERY = timedelta(seconds=2)
# Whoever has heard nothing for so long has no news, and connects anew.
NEWS_WITHIN = timedelta(seconds=6)
# Redis is on the way to every tab of the other processes: it answers at once or counts as dead.
TIMEOUT_SECONDS = 2.0
AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the process that holds the lease under `epoch` saw by its time `now`, and shows.

    `trouble` says why its last turn failed; None when it didn't.
    """

    epoch: int
    now: datetime
    phase: Phase
    body: dict[str, Any]
    seen: Observation
    trouble: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What another process asks of it: to look at once, and to tell the host something by way of Google."""

    order: Order | None = None


News = Told | Asked
_TOLD, _ASKED = TypeAdapter(Told), TypeAdapter(Asked)


class Relay:
    """One process's connection to Redis, for one machine. What fails is logged once and tried again."""

    def __init__(self, url: str, *, machine: str) -> None:
        self._redis: Any = Redis.from_url(  # pyright: ignore[reportUnknownMemberType] - redis leaves its keywords untyped
            url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),  # What isn't told now is told two seconds later, and is newer then.
        )
        self._told, self._asked = f"comfyweb:{machine}:told", f"comfyweb:{machine}:asked"
        self._fails = False

    async def close(self) -> None:
        """Let go of the connections."""
        await self._redis.aclose()

    async def tell(self, told: Told) -> None:
        """Tell all processes, this one too."""
        await self._publish(self._told, _TOLD.dump_json(told))

    async def ask(self, asked: Asked) -> None:
        """Ask the one that runs the loop."""
        await self._publish(self._asked, _ASKED.dump_json(asked))

    async def news(self) -> AsyncGenerator[News]:
        """Yield what is told and asked from now on, for ever. What can't be read is left out."""
        while True:
            try:
                async with self._redis.pubsub() as channels:
                    await channels.subscribe(self._told, self._asked)
                    async for news in self._heard(channels):
                        yield news
            except (RedisError, OSError) as error:
                self._failed(error)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _heard(self, channels: Any) -> AsyncGenerator[News]:
        """Yield news until there has been none for too long: the connection may be dead, and nobody would say so."""
        while (message := await channels.get_message(timeout=NEWS_WITHIN.total_seconds())) is not None:
            if message["type"] != "message":
                continue  # such as that it listens now
            told = message["channel"] == self._told.encode()
            try:
                news: News = (_TOLD if told else _ASKED).validate_json(message["data"])
            except ValidationError:
                log.warning("what another process said can't be read: is it of another version?")
            else:
                self._fails = False
                yield news

    async def _publish(self, channel: str, message: bytes) -> None:
        try:
            await self._redis.publish(channel, message)
        except (RedisError, OSError) as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if not self._fails:
            log.warning("Redis failed (%s): until it answers, other processes hear nothing", type(error).__name__)
        self._fails = True
