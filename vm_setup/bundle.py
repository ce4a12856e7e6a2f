"""Makes the one file that a machine gets: `python -m vm_setup.bundle FILE`.

A bash script with the host's program behind it as base64, for the metadata key `startup-script`, or to be put where
`startup-script-url` points. The same sources make the same bytes, so that the version, which holds a digest of them,
changes only when they do.
"""

import base64
import functools
import hashlib
import io
import sys
import zipfile
from pathlib import Path

from vm_setup.host.bundle import version_of

SOURCE = Path(__file__).parent
RELEASE = "0.1.0"
LONGEST_BYTES = 256 * 1024  # of one metadata value, says Compute Engine
_NOT_PACKED = {"startup.sh", "bundle.py"}
_ENTRY = "import sys\n\nfrom vm_setup.__main__ import main\n\nsys.exit(main(sys.argv[1:]))\n"
_PAYLOAD = "__PAYLOAD__"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)


@functools.cache
def script() -> str:
    """Return the start-up script. Raises ValueError when it is too long for metadata."""
    content = program()
    head = (SOURCE / "startup.sh").read_text("utf-8")
    head = head.replace("@VERSION@", _version()).replace("@SHA256@", hashlib.sha256(content).hexdigest())
    text = f"{head}{_PAYLOAD}\n" + base64.encodebytes(content).decode()
    if len(text) > LONGEST_BYTES:
        raise ValueError(f"The host bundle has {len(text)} bytes, more than the {LONGEST_BYTES} that metadata takes.")
    return text


def program() -> bytes:
    """Return the program alone, a file that Python runs."""
    packed = {**_packed_files(), "vm_setup/VERSION": f"{_version()}\n".encode()}
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in {"__main__.py": _ENTRY.encode(), **packed}.items():
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), content, zipfile.ZIP_DEFLATED)
    return raw.getvalue()


def _version() -> str:
    whole = hashlib.sha256((SOURCE / "startup.sh").read_bytes())
    for name, content in _packed_files().items():
        whole.update(f"{name} {len(content)}\n".encode() + content)
    return f"{RELEASE}+{whole.hexdigest()[:8]}"


def _packed_files() -> dict[str, bytes]:
    found = (path for path in sorted(SOURCE.rglob("*")) if path.is_file() and "__pycache__" not in path.parts)
    names = {str(path.relative_to(SOURCE)): path for path in found}
    return {f"vm_setup/{name}": path.read_bytes() for name, path in names.items() if name not in _NOT_PACKED}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(script(), "utf-8")
    sys.stdout.write(f"{sys.argv[1]}: {version_of(script())}, {len(script())} bytes\n")
