"""Certificates as others make them: Cloudflare's and its like, good and bad, for tests of what the machine takes."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAME = "comfy.example.com"
_ISSUER = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "An authority of tests")])


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A certificate (or a chain) and its key, in PEM."""

    chain: bytes
    key: bytes


def key_pem(key: EllipticCurvePrivateKey, how: KeySerializationEncryption | None = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how or NoEncryption())


def encrypted(pair: Pair) -> Pair:
    """Return the pair with another key, that asks for a password."""
    return Pair(chain=pair.chain, key=key_pem(generate_private_key(SECP256R1()), BestAvailableEncryption(b"secret")))


def issue(
    *names: str,
    since: timedelta = timedelta(days=-1),
    until: timedelta = timedelta(days=3650),
    use: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
) -> Pair:
    """Issue one for these names, with the authority's own certificate behind it."""
    authority, key, now = generate_private_key(SECP256R1()), generate_private_key(SECP256R1()), datetime.now(UTC)

    def certificate(subject: x509.Name, public: EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(_ISSUER)
            .public_key(public.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + since)
            .not_valid_after(now + until)
        )

    leaf = certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an origin")]), key)
    leaf = leaf.add_extension(
        x509.SubjectAlternativeName([x509.DNSName(one) for one in names or (NAME,)]), critical=False
    )
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    root = certificate(_ISSUER, authority).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    made = [one.sign(authority, SHA256()).public_bytes(Encoding.PEM) for one in (leaf, root)]
    return Pair(chain=b"".join(made), key=key_pem(key))
