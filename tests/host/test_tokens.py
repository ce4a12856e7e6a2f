"""Who may enter and who may command: every token is checked against the contract, once."""

import base64
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from tests.host.examples import WALL, fixture
from vm_setup.host.tokens import (
    Claims,
    Jwk,
    Memory,
    Purpose,
    Refusal,
    Request,
    Trust,
    admit,
    audience,
    check,
    decode,
    obey,
    read_keys,
    revoked_until,
)

TICKET = fixture("ticket_claims")
HOST = fixture("host_claims")
TRUST = Trust(issuer=TICKET["iss"], audience=TICKET["aud"], keys=read_keys(json.dumps(fixture("keys"))))
EXTEND = Request(method="POST", url=HOST["htu"], body=b'{"minutes":30}')


def part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def token(claims: object, *, header: object = None, signature: bytes = b"good") -> str:
    return ".".join([part(header or {"alg": "EdDSA", "kid": "k1"}), part(claims), part(signature)])


def verify(_key: Jwk, _signed: bytes, signature: bytes) -> bool:
    return signature == b"good"


def enter(claims: object, memory: Memory | None = None, *, now: float = WALL, **how: Any) -> Claims | Refusal:
    memory = memory or Memory()
    return admit(token(claims, **how), trust=TRUST, verify=verify, memory=memory, now=now, booted=WALL - 60)


def call(claims: object, request: Request = EXTEND, memory: Memory | None = None) -> Claims | Refusal:
    return obey(token(claims), request=request, trust=TRUST, verify=verify, memory=memory or Memory(), now=WALL)


def test_a_ticket_as_the_contract_has_it_lets_its_session_in() -> None:
    claims = enter(TICKET)
    assert isinstance(claims, Claims)
    assert (claims.session, claims.session_exp) == (TICKET["sub"], TICKET["session_exp"])


def test_a_host_token_as_the_contract_has_it_is_obeyed() -> None:
    assert isinstance(call(HOST), Claims)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"iss": "https://evil.example.com"}, Refusal.ISSUER),
        ({"iss": None}, Refusal.ISSUER),
        ({"aud": "host:my-project/us-central1-b/comfyui-gpu"}, Refusal.AUDIENCE),
        ({"aud": [TICKET["aud"]]}, Refusal.AUDIENCE),
        ({"purpose": "host"}, Refusal.PURPOSE),
        ({"purpose": "session"}, Refusal.PURPOSE),
        ({"exp": WALL}, Refusal.EXPIRED),
        ({"exp": WALL + 60.1}, Refusal.TOO_LONG),
        ({"exp": True}, Refusal.MALFORMED),
        ({"exp": "1795478430"}, Refusal.MALFORMED),
        ({"jti": ""}, Refusal.MALFORMED),
        ({"jti": "x" * 65}, Refusal.MALFORMED),
        ({"jti": None}, Refusal.MALFORMED),
        ({"sub": "two words"}, Refusal.MALFORMED),
        ({"session_exp": WALL}, Refusal.SESSION_OVER),
        ({"session_exp": None}, Refusal.MALFORMED),
    ],
)
def test_a_ticket_with_a_wrong_claim_is_refused(changes: dict[str, object], refusal: Refusal) -> None:
    assert enter({**TICKET, **changes}) is refusal


@pytest.mark.parametrize(
    ("header", "refusal"),
    [
        ({"alg": "none", "kid": "k1"}, Refusal.ALGORITHM),
        ({"alg": "HS256", "kid": "k1"}, Refusal.ALGORITHM),
        ({"alg": "eddsa", "kid": "k1"}, Refusal.ALGORITHM),
        ({"alg": ["EdDSA"], "kid": "k1"}, Refusal.ALGORITHM),
        ({"alg": "EdDSA", "kid": "k2"}, Refusal.UNKNOWN_KEY),
        ({"alg": "EdDSA"}, Refusal.UNKNOWN_KEY),
        ({"alg": "EdDSA", "kid": "k1", "crit": ["b64"]}, Refusal.MALFORMED),
    ],
)
def test_a_ticket_with_a_wrong_header_is_refused(header: dict[str, object], refusal: Refusal) -> None:
    assert enter(TICKET, header=header) is refusal


def test_a_ticket_that_the_app_did_not_sign_is_refused() -> None:
    assert enter(TICKET, signature=b"bad") is Refusal.SIGNATURE


def test_a_ticket_that_is_longer_than_any_is_not_read() -> None:
    assert isinstance(enter({**TICKET, "more": "x" * 5000}), Claims)
    assert enter({**TICKET, "more": "x" * 6500}) is Refusal.MALFORMED


def test_a_ticket_opens_once() -> None:
    memory = Memory()
    assert isinstance(enter(TICKET, memory), Claims)
    assert enter(TICKET, memory, now=WALL + 59) is Refusal.REPEATED


def test_a_call_is_obeyed_once() -> None:
    memory = Memory()
    assert isinstance(call(HOST, memory=memory), Claims)
    assert call(HOST, memory=memory) is Refusal.REPEATED


def test_what_can_no_longer_matter_takes_no_room() -> None:
    memory = Memory()
    enter(TICKET, memory)
    memory.revoke("s", until=WALL + 10, now=WALL)
    enter({**TICKET, "jti": "later", "exp": WALL + 3630, "session_exp": WALL + 7200}, memory, now=WALL + 3600)
    assert memory.to_json() == {"spent": {"later": WALL + 3630}, "forgotten": TICKET["exp"], "revoked": {}}


def test_a_used_ticket_stays_used_when_the_gate_restarts() -> None:
    memory = Memory()
    enter(TICKET, memory)
    assert enter(TICKET, Memory.from_json(json.loads(json.dumps(memory.to_json())))) is Refusal.REPEATED


def test_a_ticket_made_before_the_logout_is_dead_after_it() -> None:
    memory = Memory()
    memory.revoke(TICKET["sub"], until=TICKET["session_exp"], now=WALL)
    assert enter(TICKET, memory) is Refusal.REVOKED
    assert isinstance(enter({**TICKET, "sub": "another"} | {"jti": "t-2"}, memory), Claims)


def test_a_logout_is_remembered_until_the_session_would_have_ended() -> None:
    memory = Memory()
    memory.revoke("s", until=WALL + 3600, now=WALL)
    memory.revoke("s", until=WALL + 10, now=WALL)
    assert memory.revoked("s", now=WALL + 3599)
    assert not memory.revoked("s", now=WALL + 3600)


def test_a_logout_of_a_session_that_is_over_is_not_kept_and_none_is_told_past_its_end() -> None:
    memory = Memory()
    memory.revoke("over", until=WALL, now=WALL)
    memory.revoke("s", until=WALL + 10, now=WALL)
    assert memory.to_json()["revoked"] == {"s": WALL + 10}
    assert memory.revocations(now=WALL + 9) == {"s": WALL + 10}
    assert memory.revocations(now=WALL + 10) == {}


def test_a_revoke_says_its_sessions_end_or_a_whole_sessions_life_is_taken() -> None:
    claims = call(HOST)
    assert isinstance(claims, Claims)
    assert revoked_until(claims, claims.session, now=WALL) == HOST["session_exp"]
    assert revoked_until(claims, "another", now=WALL) == WALL + 86400


def test_the_app_may_still_revoke_a_session_that_is_over() -> None:
    assert isinstance(call({**HOST, "session_exp": WALL - 1}), Claims)


@pytest.mark.parametrize(
    ("request_", "refusal"),
    [
        (Request(method="GET", url=EXTEND.url, body=EXTEND.body), Refusal.REQUEST),
        (Request(method="POST", url=EXTEND.url.replace("extend", "drain"), body=EXTEND.body), Refusal.REQUEST),
        (Request(method="POST", url=EXTEND.url.replace("comfy.", "other."), body=EXTEND.body), Refusal.REQUEST),
        (Request(method="POST", url=EXTEND.url.replace("https", "http"), body=EXTEND.body), Refusal.REQUEST),
        (Request(method="POST", url="https://comfy.example.com:x/", body=EXTEND.body), Refusal.REQUEST),
        (Request(method="POST", url=EXTEND.url, body=b'{"minutes":600}'), Refusal.BODY),
    ],
)
def test_a_host_token_is_good_for_the_request_it_was_made_for_and_no_other(request_: Request, refusal: Refusal) -> None:
    assert call(HOST, request_) is refusal


@pytest.mark.parametrize(
    ("htu", "url"),
    [
        ("https://h:8443/_host/drain", "http://h:8443/_host/drain"),
        ("https://h:8443/_host/drain", "https://h/_host/drain"),
        ("https://h/_host/drain", "https://h/_host/extend"),
        ("https://h/_host/drain", "https://other/_host/drain"),
        ("https://[", "https://["),
        (None, "https://["),
    ],
)
def test_a_host_token_is_for_one_address_that_can_be_read(htu: object, url: str) -> None:
    asked = Request(method="POST", url=url, body=EXTEND.body)
    assert call({**HOST, "htu": htu}, asked) is Refusal.REQUEST


@pytest.mark.parametrize("body", [b"", EXTEND.body])
def test_a_host_token_without_its_body_s_hash_is_refused(body: bytes) -> None:
    unhashed = {name: value for name, value in HOST.items() if name != "body_sha256"}
    assert call(unhashed, Request(method="POST", url=HOST["htu"], body=body)) is Refusal.BODY


def test_two_spellings_of_one_address_are_the_same_request() -> None:
    url = "https://COMFY.example.com:443/_host/extend?lines=5"
    assert isinstance(call(HOST, Request(method="POST", url=url, body=EXTEND.body)), Claims)


def test_a_ticket_is_no_command_and_a_command_no_ticket() -> None:
    body = {"htm": "POST", "htu": EXTEND.url, "body_sha256": hashlib.sha256(EXTEND.body).hexdigest()}
    assert call({**TICKET, **body}) is Refusal.PURPOSE
    assert enter(HOST) is Refusal.PURPOSE


def test_a_host_that_knows_nothing_yet_believes_nobody() -> None:
    nothing = {**TICKET, "iss": "", "aud": ""}
    for trust in (Trust(), Trust(keys=TRUST.keys), Trust(issuer=TRUST.issuer, keys=TRUST.keys)):
        result = check(token(nothing), purpose=Purpose.TICKET, trust=trust, verify=verify, now=WALL)
        assert isinstance(result, Refusal)


@pytest.mark.parametrize(("claim", "refusal"), [("iss", Refusal.ISSUER), ("aud", Refusal.AUDIENCE)])
def test_a_host_that_does_not_know_a_name_takes_no_token_without_one(claim: str, refusal: Refusal) -> None:
    for left_out in ({claim: ""}, {claim: None}):
        unknown = replace(TRUST, **{{"iss": "issuer", "aud": "audience"}[claim]: ""})
        said = token({**TICKET, **left_out})
        memory = Memory()
        assert admit(said, trust=unknown, verify=verify, memory=memory, now=WALL, booted=WALL - 60) is refusal


@pytest.mark.parametrize("part_", ["+/8A", "QQ=", "QQ==", "Q Q", "QQ\n", "Q", "\u00e4"])
def test_what_is_not_base64url_is_nothing(part_: str) -> None:
    assert decode("QQ") == b"A"
    assert decode(part_) is None


def test_the_audience_is_unknown_while_a_part_of_it_is() -> None:
    assert audience("p", "z", "i") == "host:p/z/i"
    assert audience("p", "", "i") == ""


def test_only_ed25519_keys_of_a_jwks_are_taken() -> None:
    good = fixture("keys")["keys"][0]
    wrong = [{**good, "crv": "X25519"}, {**good, "kty": "oct"}, {**good, "kid": 5}, {**good, "x": None}, "k", None]
    assert read_keys(json.dumps({"keys": [good, *wrong]})) == {"k1": good}
    assert read_keys(json.dumps({"keys": wrong})) == {}


def test_real_signatures_pass_and_changed_ones_do_not() -> None:
    key = Ed25519PrivateKey.generate()

    def really(_key: Jwk, signed: bytes, signature: bytes) -> bool:
        return key.sign(signed) == signature  # Ed25519 signs the same text the same way

    signed = f"{part({'alg': 'EdDSA', 'kid': 'k1'})}.{part(TICKET)}"
    good = f"{signed}.{part(key.sign(signed.encode()))}"
    forged = f"{part({'alg': 'EdDSA', 'kid': 'k1'})}.{part({**TICKET, 'sub': 'root'})}.{good.rpartition('.')[2]}"
    assert isinstance(check(good, purpose=Purpose.TICKET, trust=TRUST, verify=really, now=WALL), Claims)
    assert check(forged, purpose=Purpose.TICKET, trust=TRUST, verify=really, now=WALL) is Refusal.SIGNATURE


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def unsigned(header: object, claims: object) -> str:
    return f"{part(header)}.{part(claims)}."


GARBAGE = st.one_of(st.text(), st.binary(), JSON, st.builds(token, JSON), st.builds(unsigned, JSON, JSON))


@given(garbage=GARBAGE, trust=st.sampled_from([TRUST, Trust()]))
def test_garbage_is_refused_and_never_an_error(garbage: object, trust: Trust) -> None:
    assert isinstance(admit(garbage, trust=trust, verify=verify, memory=Memory(), now=WALL, booted=0), Refusal)
    obeyed = obey(garbage, request=EXTEND, trust=trust, verify=verify, memory=Memory(), now=WALL)
    assert isinstance(obeyed, Refusal)


@given(name=st.sampled_from(sorted(TICKET)), value=JSON)
def test_garbage_in_a_signed_claim_is_never_an_error(name: str, value: object) -> None:
    assert isinstance(enter({**TICKET, name: value}), (Claims, Refusal))
    assert isinstance(call({**HOST, name: value}), (Claims, Refusal))


@pytest.mark.parametrize("made", [{"iat": WALL - 61}, {"iat": 0}, {"iat": "now"}, {"iat": None}])
def test_a_ticket_from_before_the_boot_is_refused(made: dict[str, object]) -> None:
    assert enter(TICKET | made) is Refusal.BEFORE_BOOT
    assert isinstance(enter(TICKET | {"iat": WALL - 60}), Claims)


@given(garbage=JSON)
def test_garbage_where_keys_or_memory_should_be_is_left_out(garbage: object) -> None:
    assert read_keys(json.dumps(garbage)) == {}
    assert read_keys(garbage) == {}
    Memory.from_json(garbage).spend(Claims(jti="a", session="s", session_exp=1, exp=1, rest={}), now=0)


@pytest.mark.parametrize("raw", ["[" * 8000, '{"a":' * 1000, "1e999", "9" * 5000, "NaN", '"\\ud800"', b"\xff\xfe{}"])
def test_hostile_json_is_refused(raw: str | bytes) -> None:
    claims = raw if isinstance(raw, bytes) else raw.encode()
    assert isinstance(enter(claims), Refusal)


@given(times=st.lists(st.floats(WALL - 100, WALL + 100), min_size=1, max_size=20))
def test_a_ticket_works_at_most_once_whatever_the_times(times: list[float]) -> None:
    memory, entered = Memory(), 0
    for number, moment in enumerate(times):
        entered += isinstance(enter(TICKET, memory, now=moment), Claims)
        enter({**TICKET, "jti": f"another-{number}", "exp": moment + 30}, memory, now=moment)
        memory = Memory.from_json(json.loads(json.dumps(memory.to_json())))
    assert entered <= 1
