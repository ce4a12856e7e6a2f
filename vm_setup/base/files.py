"""Files that are whole or not there, whatever moment the power goes: write beside, flush, rename."""

import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from vm_setup.host.reading import json_value, mapping

_LIMIT = 8_000_000


def write(
    path: Path, content: str | bytes, *, mode: int = 0o644, durable: bool = True, group: int | None = None
) -> None:
    """Replace a file as a whole; with `durable` it survives a power cut from here on. Raises OSError.

    `group` is the number of the group that it shall belong to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    raw = content.encode() if isinstance(content, str) else content
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(raw)
        if group is not None:
            os.fchown(file.fileno(), -1, group)
        os.fchmod(file.fileno(), mode)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    beside.replace(path)
    if durable:
        flush_folder(path.parent)


def write_changed(path: Path, content: str, *, mode: int = 0o644) -> bool:
    """Write a file unless it holds just that already, with those permissions; say whether it was written."""
    if read(path) == content and stat.S_IMODE(path.stat().st_mode) == mode:
        return False
    write(path, content, mode=mode)
    return True


def link(path: Path, target: str) -> bool:
    """Make `path` a symbolic link to `target` in one step; say whether it was another before."""
    if path.is_symlink() and str(path.readlink()) == target:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(path)
    flush_folder(path.parent)
    return True


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Let no other program be in here at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder; nothing there is fine."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Make a rename in that folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: Path) -> str:
    """Return a file's text, or nothing when it isn't there, isn't text or is no file."""
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        return ""


def read_object(path: Path) -> dict[str, object]:
    """Return the JSON object that a file holds; an empty one when it holds none, isn't there or is huge."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LIMIT + 1)
    except OSError:
        return {}
    return mapping(json_value(raw, limit=_LIMIT)) or {}


def write_object(path: Path, value: object, *, durable: bool = True) -> None:
    """Write a JSON object."""
    write(path, json.dumps(value, indent=1, sort_keys=True) + "\n", durable=durable)


def digest(*parts: str) -> str:
    """Name this content in 12 characters: another name when, and only when, a part differs."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
