"""A database in trouble: a full disk, a lock that stays, a file that is gone, corrupt or read-only, a kill."""

import asyncio
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

import pytest

from comfyweb.access.host_tokens import HostTokens
from comfyweb.access.sessions import Session
from comfyweb.cloud.host import HostClient
from comfyweb.control.controller import LEDGER_WORDS, PROBED_EVERY_SECONDS, Controller, Unavailable
from comfyweb.control.database import LedgerError
from comfyweb.control.ledger import Ledger
from comfyweb.control.visitors import Visitors
from comfyweb.machine.model import Phase, StopMode, Wanted
from tests.control.driving import Driver, driven
from tests.launching import ROOT, surroundings

SEED = 7
# Clicks and logins, each told on stdout when it is stored: what a person takes for certain.
WRITER = """
import asyncio, sys
from datetime import UTC, datetime, timedelta
from comfyweb.access.sessions import Session
from comfyweb.control.ledger import Ledger

async def main():
    ledger = Ledger(f"sqlite:///{sys.argv[1]}", machine="m")
    await ledger.open()
    now = datetime.now(UTC)
    for n in range(100_000):
        await ledger.add(Session(jti=f"{sys.argv[2]}-{n}", issued_at=now, expires_at=now + timedelta(hours=1)))
        sys.stdout.write(f"{sys.argv[2]}-{n}\\n")
        sys.stdout.flush()

asyncio.run(main())
"""


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[Driver]:
    async with driven(tmp_path) as made:
        await made.turn()
        yield made


def buttons(driver: Driver) -> Controller:
    return Controller(
        ledger=driver.ledger,
        present=lambda: driver.loop,
        publisher=driver.publisher,
        host=cast(HostClient, driver.host),
        tokens=cast(HostTokens, None),
        visitors=Visitors(),
        monotonic=lambda: driver.now().timestamp(),
    )


def anybody(driver: Driver) -> Session:
    return Session(jti="s", issued_at=driver.now(), expires_at=driver.now())


@contextmanager
def full_disk(path: Path) -> Generator[None]:
    """Let no file grow beyond what the database's log has now, as the system does it to a process over its limit."""
    longest = Path(f"{path}-wal").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (longest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


async def test_a_click_on_a_full_disk_is_refused_in_words_and_nothing_is_started(driver: Driver) -> None:
    with full_disk(driver.path):
        with pytest.raises(Unavailable, match=LEDGER_WORDS):
            await buttons(driver).start(anybody(driver))
        await driver.turn()
        assert driver.phase is Phase.OFF
        assert not driver.box.world.operations
    await buttons(driver).start(anybody(driver))
    await driver.until(Phase.BOOTING)


async def test_a_start_under_way_when_the_disk_fills_up_happens_once_when_there_is_room(driver: Driver) -> None:
    await driver.ask(Wanted.ON)
    with full_disk(driver.path):
        turning = asyncio.create_task(driver.loop.run())
        while driver.loop.trouble is None or "database" not in driver.loop.trouble:
            await asyncio.sleep(0.01)
        assert "database" in str(driver.body["fault"])
        turning.cancel()
        await asyncio.wait({turning})
    await driver.until(Phase.BOOTING)
    assert driver.body["fault"] is None
    assert [each.kind for each in driver.box.world.operations.values()].count("start") == 1


async def test_the_page_goes_on_telling_the_truth_while_nothing_can_be_written(driver: Driver) -> None:
    holder = sqlite3.connect(driver.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert driver.phase is Phase.OFF
    driver.box.control("machine", {"action": "status", "status": "SUSPENDED"})
    driver.loop.wake()
    await driver.turn()
    assert driver.phase is Phase.FAULT
    assert driver.body["status"] == "SUSPENDED"
    holder.execute("ROLLBACK")
    holder.close()


async def test_a_database_that_takes_no_writes_is_told_though_it_can_be_read(driver: Driver) -> None:
    asked = buttons(driver)
    assert (await asked.dependencies())["database"] == "ok"
    with full_disk(driver.path):
        assert (await asked.dependencies())["database"] == "ok", "it was tried a moment ago"
        driver.box.advance(PROBED_EVERY_SECONDS)
        assert "OperationalError" in (await asked.dependencies())["database"]
        await driver.ledger.standing()
    driver.box.advance(PROBED_EVERY_SECONDS)
    assert (await asked.dependencies())["database"] == "ok"


async def test_trying_whether_it_takes_writes_changes_nothing_and_waits_for_the_disk(driver: Driver) -> None:
    log = Path(f"{driver.path}-wal")
    with closing(sqlite3.connect(driver.path)) as db:
        before, size = list(db.iterdump()), log.stat().st_size
        await driver.ledger.probe()
        assert log.stat().st_size > size
        assert list(db.iterdump()) == before


@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
async def test_nothing_is_stored_in_a_file_that_is_gone(driver: Driver, replaced: bool) -> None:  # noqa: FBT001
    before = driver.path.read_bytes()
    driver.path.unlink()
    if replaced:
        driver.path.write_bytes(before)
    with pytest.raises(LedgerError, match="removed or replaced"):
        await driver.ledger.ask(Wanted.ON, StopMode.DRAIN, "s", driver.now())
    await driver.ledger.close()
    for rest in driver.path.parent.glob("ledger.db-*"):
        rest.unlink()
    driver.fresh()
    await driver.ledger.open()
    await driver.ask(Wanted.ON)
    await driver.until(Phase.BOOTING)


async def test_a_corrupt_file_is_a_clear_error_and_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"no database at all" * 1000)
    ledger = Ledger(f"sqlite:///{path}", machine="m")
    with pytest.raises(LedgerError, match="DatabaseError"):
        await ledger.open()
    await ledger.close()
    assert path.read_bytes() == b"no database at all" * 1000


async def test_a_file_of_a_newer_comfyweb_is_a_clear_error_and_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(f"sqlite:///{path}", machine="m")
    await ledger.open()
    await ledger.close()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    before = path.read_bytes()
    older = Ledger(f"sqlite:///{path}", machine="m")
    with pytest.raises(LedgerError, match="of a newer comfyweb"):
        await older.open()
    await older.close()
    assert path.read_bytes() == before


async def test_a_file_that_is_corrupted_in_use_is_a_clear_error_and_starts_nothing(driver: Driver) -> None:
    await driver.ask(Wanted.ON)
    await driver.ledger.close()
    size = driver.path.stat().st_size
    with driver.path.open("r+b") as file:
        file.seek(4096)
        file.write(random.Random(SEED).randbytes(size - 4096))  # noqa: S311 - noise
    driver.fresh()
    with pytest.raises(LedgerError, match="DatabaseError"):
        await driver.turn()
    assert not driver.box.world.operations


async def test_a_file_that_may_not_be_written_is_a_clear_error() -> None:
    ledger = Ledger("sqlite:////proc/version", machine="m")  # Not even root may write this one.
    with pytest.raises(LedgerError, match="the database failed"):
        await ledger.open()
    await ledger.close()


@pytest.mark.slow
def test_what_was_acknowledged_survives_kills_at_any_moment(tmp_path: Path) -> None:
    """A real process, a real kill, at moments from a seed: some while it opens the file, most while it writes."""
    path, chance = tmp_path / "ledger.db", random.Random(SEED)  # noqa: S311 - when to kill
    told: list[str] = []
    for life in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(life)],
            cwd=ROOT,
            env=surroundings({}),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout
        enough = chance.randrange(40)
        while enough and (line := writer.stdout.readline()):
            told.append(line.strip())
            enough -= 1
        time.sleep(chance.random() / 100)
        os.kill(writer.pid, signal.SIGKILL)
        told += [line for line in writer.stdout.read().split("\n")[:-1] if line]
        writer.wait()
        writer.stdout.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        kept = {jti for (jti,) in db.execute("SELECT jti FROM session")}
    assert told
    assert set(told) <= kept
    assert len(kept) <= len(told) + 8
