"""ComfyUI's user and the folders on the data volume, each with the owner that it should have.

What root runs from or writes to belongs to root; ComfyUI's user, and so any custom node, owns only what it must change.
"""

from pathlib import Path

from vm_setup.base import files
from vm_setup.base.paths import Data
from vm_setup.setup.adoption import FOLDERS
from vm_setup.setup.system import USER, System, Trouble


def user_ids(system: System, name: str = USER) -> tuple[int, int] | None:
    """Return the numbers of a user (ComfyUI's) and its group, or None while there is no such user."""
    rows = (line.split(":") for line in files.read(system.paths.etc / "passwd").splitlines())
    return next(((int(row[2]), int(row[3])) for row in rows if row[0] == name), None)


def ensure_service_user(system: System, name: str) -> None:
    """Make a user, with a group of the same name, for a service that owns nothing. Raises `Trouble`."""
    if user_ids(system, name) is not None:
        return
    command = ("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent")
    done = system.run(*command, "--shell", "/usr/sbin/nologin", name)
    if user_ids(system, name) is None:
        raise Trouble(f"The user {name} could not be made: {done.words}")


def ensure_user(system: System, data: Data) -> tuple[int, int]:
    """Make ComfyUI's user: no password, no shell, no login. Raises `Trouble`.

    On a new boot disk the number is taken from the data disk, so that its files need no new owner.
    """
    if (known := user_ids(system)) is not None:
        return known
    owner = data.base.stat().st_uid if data.base.is_dir() else 0
    taken = {line.split(":")[2] for line in files.read(system.paths.etc / "passwd").splitlines() if line.count(":") > 1}
    number = ("--uid", str(owner)) if owner and str(owner) not in taken else ()
    command = ("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", data.home)
    done = system.run(*command, "--shell", "/usr/sbin/nologin", *number, USER)
    made = user_ids(system)
    if made is None:
        raise Trouble(f"The user {USER} could not be made: {done.words}")
    for group in ("video", "render"):
        system.run("usermod", "--append", "--groups", group, USER)
    return made


def ensure_folders(system: System, data: Data, uid: int, gid: int) -> None:
    """Make the folders, and give ComfyUI's user what it must be able to change. Raises `Trouble`."""
    try:
        for folder in (data.tree, data.releases, data.state):
            folder.mkdir(parents=True, exist_ok=True)
        theirs = (data.base, data.home, data.cache)
        for folder in (*theirs, *(data.base / name for name in FOLDERS)):
            if folder.is_symlink() or folder.is_file():  # the user's own arrangement, or a node's mistake
                continue
            folder.mkdir(exist_ok=True)
            _give(system, folder, uid, gid)
        for environment in (*data.tree.glob("venv-*"), *data.tree.glob("tools-*")):
            _give(system, environment, uid, gid)
    except OSError as error:
        raise Trouble(f"The data volume {data.volume} can't be written: {error.strerror}") from error


def _give(system: System, folder: Path, uid: int, gid: int) -> None:
    """Change the owner of a folder and of all in it, unless the folder has it already."""
    found = folder.stat()
    if (found.st_uid, found.st_gid) != (uid, gid):
        system.run("chown", "-Rh", f"{uid}:{gid}", folder, timeout=3600)
