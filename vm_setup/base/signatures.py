"""Checking Ed25519 signatures with what the machine has: Python's cryptography, else the openssl command.

Debian's and Ubuntu's ca-certificates needs openssl, so a machine that can reach anything by https has it.
"""

import functools
import importlib.util
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

from vm_setup.base.processes import run
from vm_setup.host.tokens import Jwk, Verify, decode

_LOG = logging.getLogger(__name__)
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_DER = bytes.fromhex("302a300506032b6570032100")  # a SubjectPublicKeyInfo of Ed25519 before the key itself, RFC 8410


def verifier() -> Verify | None:
    """Return the signature check of this machine; None when it has none that works."""
    for name, make in (("cryptography", _by_cryptography), ("openssl", _by_openssl)):
        verify = make()
        if verify is not None and _works(verify):
            _LOG.info("Signatures are checked by %s.", name)
            return verify
    _LOG.error("No signature can be checked here, so no command is obeyed.")
    return None


def _checked(check: Callable[[bytes, bytes, bytes], bool]) -> Verify:
    """Return the check for a JWK; False for a key or a signature that is none. Metadata shows the same ones again."""
    check = functools.lru_cache(maxsize=128)(check)

    def verify(key: Jwk, signing_input: bytes, signature: bytes) -> bool:
        public = decode(str(key.get("x", "")))
        if public is None or len(public) != _KEY_BYTES or len(signature) != _SIGNATURE_BYTES:
            return False
        return check(public, signing_input, signature)

    return verify


def _by_cryptography() -> Verify | None:
    if importlib.util.find_spec("cryptography") is None:
        return None
    try:
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - not every machine has it
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415
    except Exception:  # noqa: BLE001 - a broken build of it raises whatever it likes
        return None

    def check(public: bytes, signed: bytes, signature: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, signed)
        except (InvalidSignature, ValueError):
            return False
        return True

    return _checked(check)


def _by_openssl() -> Verify | None:
    program = shutil.which("openssl")
    if program is None:
        return None

    def check(public: bytes, signed: bytes, signature: bytes) -> bool:
        """Ed25519 is checked in one go, for which openssl 3 wants files."""
        with tempfile.TemporaryDirectory() as folder:
            key, message, signed_by = (Path(folder, name) for name in ("key", "message", "signature"))
            key.write_bytes(_DER + public)
            message.write_bytes(signed)
            signed_by.write_bytes(signature)
            argv = [program, "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", str(key), "-rawin"]
            code, _ = run([*argv, "-in", str(message), "-sigfile", str(signed_by)])
        return code == 0

    def verify(public: bytes, signed: bytes, signature: bytes) -> bool:
        try:
            return check(public, signed, signature)
        except OSError:
            _LOG.exception("A signature could not be checked.")
            return False

    return _checked(verify)


# RFC 8032, section 7.1, test 2: one octet, 0x72.
_KEY = cast("Jwk", {"x": "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw"})
_SIGNED = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def _works(verify: Verify) -> bool:
    """Whether it says yes to a signature that is known to be good, and no to a spoilt one."""
    return verify(_KEY, b"\x72", _SIGNED) and not verify(_KEY, b"\x73", _SIGNED)
