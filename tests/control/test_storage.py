"""Whether the ledger's place can be used, found out without leaving a trace."""

import sqlite3
from pathlib import Path

import pytest

from comfyweb.control.ledger import Ledger
from comfyweb.control.storage import examine


async def test_a_ledger_in_use_can_be_written_and_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    ledger = Ledger(f"sqlite:///{file}", machine="m")
    await ledger.open()
    seen = examine(f"sqlite:///{file}")
    assert seen.trouble == ""
    assert seen.free_bytes
    await ledger.close()


def test_one_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    assert examine(f"sqlite:///{tmp_path / 'ledger.db'}").trouble == ""
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "can't be used" in examine(f"sqlite:///{tmp_path / 'nowhere/ledger.db'}").trouble


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    file.write_text("a letter, long enough to be taken for one with a header" * 100)
    assert "not a database" in examine(f"sqlite:///{file}").trouble


def test_a_lock_that_stays_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comfyweb.control.storage.WAIT_SECONDS", 0.1)
    file = tmp_path / "ledger.db"
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("CREATE TABLE t (x)")
    holder.execute("BEGIN IMMEDIATE")
    assert "locked" in examine(f"sqlite:///{file}").trouble
    holder.close()


def test_a_database_in_memory_is_called_what_it_is() -> None:
    assert "memory" in examine("sqlite://").trouble


def test_a_server_that_does_not_answer_is_told_without_its_address() -> None:
    trouble = examine("postgresql://me:marked-password@127.0.0.1:1/comfyweb").trouble
    assert trouble
    assert "marked" not in trouble
