"""The signature check that the host's pure rules are given here. The real host brings one of its own."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from vm_setup.host.tokens import Jwk, decode


def verify(key: Jwk, signing_input: bytes, signature: bytes) -> bool:
    """Whether `signature` is that of `key`, an Ed25519 public key as JWK (RFC 8037); False for a key that is none."""
    public = decode(str(key.get("x", "")))
    if public is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signing_input)
    except (InvalidSignature, ValueError):
        return False
    return True
