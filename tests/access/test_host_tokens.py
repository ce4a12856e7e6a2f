"""What the app signs, the host accepts: checked against the host's own rules."""

import hashlib
import json
from datetime import timedelta

import jwt
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import SecretStr

from comfyweb.access.host_tokens import HostTokens, generate_private_key
from comfyweb.access.sessions import Session
from comfyweb.settings import load
from tests.access.conftest import SECRET, START, Clock
from vm_setup.host import commands, tokens

ISSUER = "https://app.example.com"
AUDIENCE = "host:demo-project/us-central1-a/comfyui-gpu"
SESSION = Session(
    jti="a-session",
    issued_at=START.replace(microsecond=0),
    expires_at=START.replace(microsecond=0) + timedelta(hours=1),
)
URL = "https://comfy.example.com/_host/extend"
KEY, OTHER_KEY = generate_private_key(), generate_private_key()
NOW = START.timestamp()


def verify(key: tokens.Jwk, signed: bytes, signature: bytes) -> bool:
    public = Ed25519PublicKey.from_public_bytes(tokens.decode(str(key["x"])) or b"")
    try:
        public.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def host_tokens(*keys: str, audience: str = AUDIENCE) -> HostTokens:
    return HostTokens(
        keys=[SecretStr(key) for key in keys or (KEY,)], issuer=ISSUER, audience=lambda: audience, now=Clock()
    )


def trust(jwks: str) -> tokens.Trust:
    return tokens.Trust(issuer=ISSUER, audience=AUDIENCE, keys=tokens.read_keys(jwks))


def admitted(token: str, jwks: str, now: float = NOW) -> tokens.Claims | tokens.Refusal:
    return tokens.admit(token, trust=trust(jwks), verify=verify, memory=tokens.Memory(), now=now, booted=now - 60)


def obeyed(token: str, jwks: str, request: tokens.Request) -> tokens.Claims | tokens.Refusal:
    return tokens.obey(token, request=request, trust=trust(jwks), verify=verify, memory=tokens.Memory(), now=NOW)


@pytest.mark.parametrize("skew", [-25, 0, 25])
def test_the_host_admits_a_ticket_though_the_clocks_differ_a_little(skew: float) -> None:
    ours = host_tokens()
    claims = admitted(ours.ticket(SESSION), ours.jwks, NOW + skew)
    assert isinstance(claims, tokens.Claims)
    assert (claims.session, claims.session_exp) == ("a-session", SESSION.expires_at.timestamp())


def test_a_ticket_says_what_the_contract_says() -> None:
    ours = host_tokens()
    token = ours.ticket(SESSION)
    claims = jwt.decode(token, options={"verify_signature": False})
    assert len(claims.pop("jti")) >= 20
    assert claims == {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": int(NOW),
        "exp": int(NOW) + 30,
        "sub": "a-session",
        "session_exp": int(SESSION.expires_at.timestamp()),
        "purpose": "ticket",
    }
    header = jwt.get_unverified_header(token)
    assert (header["alg"], header["kid"]) == ("EdDSA", json.loads(ours.jwks)["keys"][0]["kid"])


def test_no_two_tokens_are_the_same() -> None:
    ours = host_tokens()
    assert len({ours.ticket(SESSION) for _ in range(100)}) == 100


def test_a_ticket_is_dead_after_a_minute() -> None:
    ours = host_tokens()
    assert admitted(ours.ticket(SESSION), ours.jwks, NOW + 60) is tokens.Refusal.EXPIRED


def test_the_host_obeys_the_call_that_a_token_was_made_for_and_no_other() -> None:
    ours = host_tokens()
    body = b'{"minutes": 30}'
    asked = tokens.Request(method="POST", url=URL, body=body)
    assert isinstance(obeyed(ours.call("POST", URL, body), ours.jwks, asked), tokens.Claims)
    assert obeyed(ours.call("DELETE", URL, body), ours.jwks, asked) is tokens.Refusal.REQUEST
    assert obeyed(ours.call("POST", URL + "/more", body), ours.jwks, asked) is tokens.Refusal.REQUEST
    assert obeyed(ours.call("POST", URL), ours.jwks, asked) is tokens.Refusal.BODY
    assert obeyed(ours.ticket(SESSION), ours.jwks, asked) is tokens.Refusal.PURPOSE


def test_a_call_on_behalf_of_a_session_names_it_and_any_other_is_the_apps() -> None:
    ours = host_tokens()
    asked = tokens.Request(method="GET", url=URL, body=b"")
    for_session = obeyed(ours.call("GET", URL, session=SESSION), ours.jwks, asked)
    for_app = obeyed(ours.call("GET", URL), ours.jwks, asked)
    assert isinstance(for_session, tokens.Claims)
    assert isinstance(for_app, tokens.Claims)
    assert (for_session.session, for_app.session) == ("a-session", "app")
    assert for_app.rest["body_sha256"] == hashlib.sha256(b"").hexdigest()


def test_the_host_takes_a_command_from_metadata_minutes_later() -> None:
    ours = host_tokens()
    listed = json.dumps([ours.command("POST", "/_host/drain", {"deadline_seconds": 60})])
    for later, wanted in ((0, commands.StartDrain(60)), (500, commands.StartDrain(60)), (600, None)):
        [taken] = commands.take(listed, trust=trust(ours.jwks), verify=verify, memory=tokens.Memory(), now=NOW + later)
        assert (taken.command if isinstance(taken, commands.Order) else None) == wanted


def test_while_rotating_the_first_key_signs_and_the_host_accepts_all() -> None:
    old, rotating, new = host_tokens(KEY), host_tokens(OTHER_KEY, KEY), host_tokens(OTHER_KEY)
    assert isinstance(admitted(old.ticket(SESSION), rotating.jwks), tokens.Claims)
    assert isinstance(admitted(rotating.ticket(SESSION), new.jwks), tokens.Claims)
    assert admitted(old.ticket(SESSION), new.jwks) is tokens.Refusal.UNKNOWN_KEY


def test_a_token_for_a_machine_elsewhere_is_refused() -> None:
    elsewhere = host_tokens(audience=AUDIENCE.replace("-a/", "-b/"))
    assert admitted(elsewhere.ticket(SESSION), elsewhere.jwks) is tokens.Refusal.AUDIENCE


def test_the_published_keys_hold_no_secret_and_are_named_by_their_thumbprint() -> None:
    # The key and its thumbprint are those of RFC 8037, appendices A.1 to A.3.
    seed = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
    [published] = json.loads(host_tokens(seed).jwks)["keys"]
    assert published == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
        "alg": "EdDSA",
        "use": "sig",
    }


def test_a_made_key_is_one_that_the_settings_take_and_never_the_same() -> None:
    environ = {"AUTH_PASSWORD": "correct horse battery", "JWT_SECRET": SECRET, "GCP_PROJECT": "demo-project"}
    found = load({**environ, "GATE_PRIVATE_KEY": KEY}, None).gate_private_key
    assert [key.get_secret_value() for key in found] == [KEY]
    assert KEY != OTHER_KEY
    assert KEY not in repr(vars(host_tokens()))
