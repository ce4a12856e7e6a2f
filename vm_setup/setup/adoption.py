"""A host that the old script set up is taken over where it is, and can be handed back.

The old script ran ComfyUI as root under supervisor, from /mnt/persist/ComfyUI, with cron jobs that stop the machine and
nginx in front of an open port. Its services are switched off; its models, nodes, outputs and settings are used where
they lie. Before anything changes the manifest says what it was, so that `adopt-undo` puts all of it back, from whatever
line the adoption was cut off at.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vm_setup.base import files
from vm_setup.base.paths import Data
from vm_setup.host.reading import items, json_value, mapping
from vm_setup.setup.steps import Steps
from vm_setup.setup.system import LOG, System

FOLDERS = ("models", "custom_nodes", "output", "input", "user")
_NAME = "comfyui"
# The old ComfyUI's folder, or its program. A path below it may be in a job of the user's own, such as a backup.
_OLD = re.compile(r"/mnt/persist/ComfyUI(?:/main\.py|/?(?=[\s\"';&]|$))", re.MULTILINE)
_STOPS = re.compile(r"\b(shutdown|poweroff|halt|instances\s+stop)\b")
_IDLE = re.compile(r"comfy|idle|8188", re.IGNORECASE)
_LONGEST_SCRIPT = 100_000
_COMMENT = "# comfyweb put this aside: "


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was changed on an old host, with the original of each file, in /var/lib/comfyweb/adoption."""

    system: System

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.system.paths.state / "adoption"

    @property
    def undone(self) -> Path:
        """The mark of a host that was handed back: reconcile leaves it alone."""
        return self.folder / "undone"

    def entries(self) -> list[dict[str, object]]:
        """List what was changed, oldest first."""
        found = items(files.read_object(self.folder / "manifest.json").get("changed")) or []
        return [entry for entry in map(mapping, found) if entry is not None]

    def put_aside(self, path: Path) -> None:
        """Move a file or link away, after writing down that it was there."""
        self._keep(path)
        files.remove(path)

    def change(self, path: Path, content: str) -> None:
        """Change a file, after keeping what it was."""
        self._keep(path)
        files.write(path, content, mode=path.stat().st_mode & 0o7777)

    def _keep(self, path: Path) -> None:
        """Keep the original of a file once: what a second run finds may be ours."""
        known = self.entries()
        if any(entry.get("path") == str(path) for entry in known):
            return
        entry: dict[str, object] = {"path": str(path)}
        if path.is_symlink():
            entry["link"] = str(path.readlink())
        else:
            kept = f"{len(known)}-{path.name}"
            files.write(self.folder / kept, path.read_bytes(), mode=0o600)
            entry |= {"kept": kept, "mode": path.stat().st_mode & 0o7777}
        files.write_object(self.folder / "manifest.json", {"changed": [*known, entry]})

    def restore(self) -> None:
        """Put every file back as it was. Lines that were put aside come back where they are: others may be new."""
        for entry in reversed(self.entries()):
            path = Path(str(entry["path"]))
            if "link" in entry:
                files.link(path, str(entry["link"]))
                continue
            now = files.read(path)
            raw = (self.folder / str(entry["kept"])).read_bytes()
            files.write(path, now.replace(_COMMENT, "") if _COMMENT in now else raw, mode=int(str(entry["mode"])))


def adopt_services(system: System, steps: Steps) -> None:
    """Switch off what the old script had running, where it was; what is there later is the user's.

    Only an old ComfyUI that is switched on again is switched off again: two of them would want the same port and card.
    """
    manifest, etc = Manifest(system), system.paths.etc
    is_first, is_old = not _looked(system).exists(), _is_old(system)
    for path in _supervised(etc) if is_old else ():
        for name in _programs(files.read(path)):
            system.run("supervisorctl", "stop", name, timeout=60)
        manifest.change(path, _switched_off(files.read(path)))
    if is_old and is_first:
        _put_aside_jobs(system, manifest)
    # Without `nofail` an absent disk would keep the machine from booting; the disk has a unit of its own now.
    _comment_out(manifest, etc / "fstab", lambda line: _mounts_our_disk(system, line))
    _settle(system, manifest)
    told, aside = files.read(_looked(system)).splitlines(), [str(entry["path"]) for entry in manifest.entries()]
    if news := [path for path in aside if path not in told]:
        steps.warn(
            f"{'This machine was set up by another script. ' * is_old}Put aside or changed, until `comfyweb.pyz "
            f"adopt-undo` is run on the machine: {', '.join(news)}."
        )
    if is_first or news:
        files.write(_looked(system), "".join(f"{path}\n" for path in aside))


def _looked(system: System) -> Path:
    """Return the note that this boot disk was looked at to the end; it holds what people have been told of."""
    return system.paths.state / "adoption-looked"


def _is_old(system: System) -> bool:
    """Whether the old script has set this machine up."""
    texts = map(files.read, _configurations(system.paths.etc))
    return (Data(volume=system.paths.mount).old / "main.py").is_file() or any(
        _runs_comfyui(part) for text in texts for name, part in _sections(text) if name
    )


def _put_aside_jobs(system: System, manifest: Manifest) -> None:
    """Put aside the jobs that stopped the machine or started ComfyUI, and nginx's way to it."""
    etc = system.paths.etc
    crons = [*etc.glob("cron.d/*"), etc / "crontab", system.paths.root / "var/spool/cron/crontabs/root"]
    for path in sorted(crons):
        if path.is_file():
            _comment_out(manifest, path, lambda line: _is_old_job(system, line))
    for site in sorted(etc.glob("nginx/sites-enabled/*")):
        if _fronts_comfyui(site):
            manifest.put_aside(site)


def _settle(system: System, manifest: Manifest) -> None:
    """Let the services see what changed, once: also when we were killed before they had."""
    changed = [str(entry["path"]) for entry in manifest.entries()]
    settled, now = manifest.folder / "settled", files.digest(*(path for path in changed if "/systemd/" not in path))
    if not changed or files.read(settled) == now:
        return
    system.run("supervisorctl", "update", timeout=60)
    system.run("systemctl", "try-reload-or-restart", "nginx.service")
    files.write(settled, now)


def adopt_files(system: System, data: Data, uid: int, gid: int) -> None:
    """Use the old folders where they are, as ComfyUI's user: links to them, and their owners changed, written down."""
    old = [data.old / name for name in FOLDERS if (data.old / name).is_dir() and not (data.old / name).is_symlink()]
    links = [data.base / folder.name for folder in old]
    fresh = [link for link in links if not link.exists() or (link.is_dir() and not any(link.iterdir()))]
    for link in fresh:
        if link.is_dir() and not link.is_symlink():
            link.rmdir()
        files.link(link, os.path.relpath(data.old / link.name, data.base))
    taken = [folder for folder in old if (data.base / folder.name).is_symlink()]
    if taken and files.read(_owned(data)) != f"{uid}:{gid}":
        _change_owners(system, data, taken, uid, gid)


def _owned(data: Data) -> Path:
    return data.state / "adopted-owner"


def _owners(data: Data) -> Path:
    return data.state / "adopted-owners.jsonl"


def _change_owners(system: System, data: Data, folders: list[Path], uid: int, gid: int) -> None:
    if not _owners(data).exists():  # whole, or not there: else an owner that we gave would count as the old one
        lines = (json.dumps([str(p.relative_to(data.volume)), *_owner(p)]) for folder in folders for p in _walk(folder))
        files.write(_owners(data), "\n".join(lines) + "\n", mode=0o600)
    LOG.info("The owner of %s becomes ComfyUI's user.", ", ".join(map(str, folders)))
    system.run("chown", "-Rh", f"{uid}:{gid}", *folders, timeout=3600)
    files.write(_owned(data), f"{uid}:{gid}")


def _walk(folder: Path) -> Iterator[Path]:
    yield folder
    for where, folders, names in os.walk(folder):
        yield from (Path(where, name) for name in (*folders, *names))


def _owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


def undo(system: System, data: Data, *, stop: list[str], remove: list[str]) -> None:
    """Hand the host back: our units off, the old files and owners as they were, the old services running.

    `stop` are the units that must end now. The data disk's are not among them: it stays mounted, as it was.
    """
    manifest = Manifest(system)
    files.write(manifest.undone, "Remove this file to let comfyweb adopt the machine again.\n")
    system.run("systemctl", "stop", *stop, timeout=120)
    for name in remove:
        for link in system.paths.units.glob(f"*.*/{name}"):
            files.remove(link)
        files.remove(system.paths.units / name)
    manifest.restore()
    files.remove(_looked(system))
    for folder in FOLDERS:
        link = data.base / folder
        if link.is_symlink():
            files.remove(link)
    for line in files.read(_owners(data)).splitlines():
        path, uid, gid = _owner_line(line)
        if path:
            _give_back(data.volume / path, uid, gid)
    files.remove(_owned(data))
    files.remove(_owners(data))
    system.run("systemctl", "daemon-reload")
    system.run("supervisorctl", "update", timeout=60)
    for path in _supervised(system.paths.etc):
        for name in _programs(files.read(path)):
            system.run("supervisorctl", "start", name, timeout=60)
    theirs = system.paths.units / "multi-user.target.wants/nginx.service"
    system.run("systemctl", "reload-or-restart" if theirs.is_symlink() else "try-reload-or-restart", "nginx.service")
    LOG.info("The host is as it was before comfyweb.")


def _owner_line(line: str) -> tuple[str, int, int]:
    row = items(json_value(line, limit=_LONGEST_SCRIPT)) or ["", 0, 0]
    return str(row[0]), int(str(row[1])), int(str(row[2]))


def _give_back(path: Path, uid: int, gid: int) -> None:
    try:
        os.lchown(path, uid, gid)
    except FileNotFoundError:
        LOG.info("%s is not there any more.", path)


def _supervised(etc: Path) -> list[Path]:
    """List supervisor's files that run ComfyUI."""
    return [path for path in _configurations(etc) if _programs(files.read(path))]


def _configurations(etc: Path) -> list[Path]:
    """List supervisor's files."""
    places = [*etc.glob("supervisor/conf.d/*.conf"), etc / "supervisor/supervisord.conf", etc / "supervisord.conf"]
    return [path for path in sorted(places) if path.is_file()]


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield a configuration's sections: the name of each program (else nothing), and the lines with their heading."""
    for part in re.split(r"^(?=\[)", text, flags=re.MULTILINE):
        heading = re.match(r"\[program:([^\]]+)\]", part)
        yield (heading[1].strip() if heading else ""), part


def _programs(text: str) -> list[str]:
    """Return the programs that run ComfyUI, by their name, folder or command, and are not switched off."""
    return [
        name
        for name, part in _sections(text)
        if name
        and (name.lower() == _NAME or _runs_comfyui(part))
        and not re.search(r"^autostart\s*=\s*false", part, re.MULTILINE)
    ]


def _runs_comfyui(section: str) -> bool:
    return any(map(_OLD.search, re.findall(r"^(?:command|directory)\s*=(.*)$", section, re.MULTILINE)))


def _switched_off(text: str) -> str:
    """Return the configuration with the programs that run ComfyUI not started any more."""
    names = _programs(text)
    changed: list[str] = []
    for name, part in _sections(text):
        if name not in names:
            changed.append(part)
            continue
        kept = re.sub(r"^(autostart|autorestart)\s*=.*\n?", "", part, flags=re.MULTILINE).rstrip("\n")
        changed.append(f"{kept}\nautostart=false\nautorestart=false\n")
    return "".join(changed)


def _comment_out(manifest: Manifest, path: Path, is_meant: Callable[[str], bool]) -> None:
    """Put aside the lines of a file that are meant."""
    lines = files.read(path).splitlines(keepends=True)
    if any(map(is_meant, lines)):
        manifest.change(path, "".join(f"{_COMMENT}{line}" if is_meant(line) else line for line in lines))


def _is_old_job(system: System, line: str) -> bool:
    """Whether a crontab's line stops the machine when it seems idle, or starts ComfyUI."""
    job = line.strip()
    if not job or job.startswith("#") or not re.match(r"[@\d*]", job):
        return False
    scripts = (system.paths.root / word.lstrip("/") for word in re.findall(r"/[\w./-]+", job))
    texts = [job, *(files.read(path)[:_LONGEST_SCRIPT] for path in scripts if path.is_file())]
    whole = "\n".join(texts)
    starts = job.startswith("@reboot") and (_OLD.search(whole) or re.search("start.*comfy", job, re.IGNORECASE))
    return bool(starts or (_STOPS.search(whole) and _IDLE.search(whole)))


def _fronts_comfyui(path: Path) -> bool:
    return bool(re.search(r"proxy_pass\s+http://(127\.0\.0\.1|localhost|\[::1\]):8188", files.read(path)))


def users_mount(system: System) -> bool:
    """Whether `fstab` has something at /mnt/persist that our unit can't mount: then it is the user's to mount."""
    lines = files.read(system.paths.etc / "fstab").splitlines()
    return any(_mounts_at_persist(line) and not _mounts_our_disk(system, line) for line in lines)


def _mounts_at_persist(line: str) -> bool:
    return not line.lstrip().startswith("#") and line.split()[1:2] == ["/mnt/persist"]


def _mounts_our_disk(system: System, line: str) -> bool:
    """Whether a line of `fstab` does what our unit does, by whatever name of the disk."""
    if not _mounts_at_persist(line) or not (line.split()[2:3] or [""])[0].startswith("ext"):
        return False
    name = line.split(maxsplit=1)[0]
    kind, _, value = name.replace('"', "").partition("=")
    folder = {"UUID": "by-uuid", "LABEL": "by-label", "PARTUUID": "by-partuuid"}.get(kind)
    device = system.paths.kernel / (f"dev/disk/{folder}/{value}" if folder else name.lstrip("/"))
    ours = system.paths.disk
    return device == ours or (device.exists() and device.resolve() == ours.resolve())
