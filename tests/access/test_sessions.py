"""Who gets in, who stays in, and what puts them out."""

import asyncio
import base64
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from unittest.mock import AsyncMock

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from comfyweb.access.passwords import Busy, Passwords
from comfyweb.access.sessions import CACHED_TOKENS, LIFETIME, Session, Sessions, SessionsUnavailable, WrongPassword
from comfyweb.access.throttle import ATTEMPTS, FREE_IN_ALL, TooManyAttempts
from tests.access.conftest import OTHER_SECRET, PASSWORD, SECRET, START, Bench, Clock, Store, StoreDown
from tests.access.test_passwords import WRONG

HERE = "203.0.113.7"


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


# -- logging in ------------------------------------------------------------------------------------------------------


async def test_the_password_gives_a_token_for_a_day(bench: Bench) -> None:
    sessions = bench.sessions()
    token, session = await sessions.login(PASSWORD, HERE)
    assert session.issued_at == START.replace(microsecond=0)
    assert session.expires_at - session.issued_at == timedelta(hours=24)
    assert bench.store.rows == {session.jti: session}
    assert sessions.verify(token, bench.clock()) == session


async def test_the_token_says_what_the_contract_says(bench: Bench) -> None:
    token, session = await bench.sessions().login(PASSWORD, HERE)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    assert claims_of(token) == {
        "iss": "comfyweb",
        "sub": "owner",
        "iat": int(session.issued_at.timestamp()),
        "exp": int(session.expires_at.timestamp()),
        "jti": session.jti,
        "purpose": "session",
    }


async def test_every_login_is_a_session_of_its_own(bench: Bench) -> None:
    sessions = bench.sessions()
    (one, first), (other, second) = await sessions.login(PASSWORD, HERE), await sessions.login(PASSWORD, HERE)
    assert one != other
    assert first.jti != second.jti


@pytest.mark.parametrize("candidate", WRONG)
async def test_every_failure_costs_one_check_and_says_the_same(bench: Bench, candidate: object) -> None:
    with pytest.raises(WrongPassword) as caught:
        await bench.sessions().login(candidate, HERE)
    assert caught.value.args == ()
    assert bench.hasher.checked == 1
    assert bench.store.rows == {}


async def test_a_refused_address_is_not_checked_and_may_come_back(bench: Bench) -> None:
    sessions = bench.sessions()
    for _ in range(ATTEMPTS):
        with pytest.raises(WrongPassword):
            await sessions.login("wrong", HERE)
    with pytest.raises(TooManyAttempts) as caught:
        await sessions.login(PASSWORD, HERE)
    assert caught.value.retry_after == 600
    assert bench.hasher.checked == ATTEMPTS
    bench.clock.forward(minutes=10)
    _, session = await sessions.login(PASSWORD, HERE)
    assert sessions.is_live(session.jti, bench.clock())


async def test_who_knows_the_password_starts_over_with_a_clean_sheet(bench: Bench) -> None:
    sessions = bench.sessions()
    for candidate in (["wrong"] * (ATTEMPTS - 1) + [PASSWORD]) * 2:
        try:
            _, session = await sessions.login(candidate, HERE)
        except WrongPassword:
            continue
        assert sessions.is_live(session.jti, bench.clock())
    assert len(bench.store.rows) == 2


async def test_attempts_at_the_same_time_are_counted_before_they_are_answered(bench: Bench) -> None:
    sessions = bench.sessions()
    answers = await asyncio.gather(*(sessions.login("wrong", HERE) for _ in range(50)), return_exceptions=True)
    assert [type(answer) for answer in answers].count(WrongPassword) == ATTEMPTS
    assert bench.hasher.checked == ATTEMPTS


async def test_guessing_elsewhere_only_delays_and_touches_no_live_session(bench: Bench) -> None:
    sessions = bench.sessions()
    token, session = await sessions.login(PASSWORD, HERE)
    for n in range(FREE_IN_ALL + 5):
        with pytest.raises(WrongPassword):
            await sessions.login("wrong", f"198.51.100.{n}")
    assert sessions.verify(token, bench.clock()) == session
    await sessions.login(PASSWORD, "203.0.113.99")
    assert 0 < bench.delays[-1] < 1
    await sessions.login(PASSWORD, HERE)
    assert bench.delays[-1] == 0, "the password is known there"


async def test_a_full_line_asks_to_come_back_soon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Passwords, "matches", AsyncMock(side_effect=Busy))
    with pytest.raises(TooManyAttempts) as caught:
        await bench.sessions().login(PASSWORD, HERE)
    assert caught.value.retry_after == 2


# -- verifying -------------------------------------------------------------------------------------------------------


def forged(secret: Any, algorithm: str = "HS256", *, changed: Mapping[str, object] | None = None) -> str:
    """Return a token like that of `KNOWN`, with something changed; None leaves a claim out."""
    claims: dict[str, object] = {
        "iss": "comfyweb",
        "sub": "owner",
        "iat": int(KNOWN.issued_at.timestamp()),
        "exp": int(KNOWN.expires_at.timestamp()),
        "jti": KNOWN.jti,
        "purpose": "session",
    }
    claims = {name: value for name, value in (claims | dict(changed or {})).items() if value is not None}
    return jwt.PyJWS().encode(json.dumps(claims).encode(), secret, algorithm, {"typ": "JWT"})


def unsigned(header: dict[str, object], token: str, signature: str = "") -> str:
    head = base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")
    return f"{head}.{token.split('.')[1]}.{signature}"


KNOWN = Session(jti="known", issued_at=START.replace(microsecond=0), expires_at=START.replace(microsecond=0) + LIFETIME)


@pytest.fixture
async def knowing(bench: Bench) -> Sessions:
    bench.store.rows[KNOWN.jti] = KNOWN
    sessions = bench.sessions()
    await sessions.refresh()
    return sessions


async def test_what_we_would_have_signed_is_accepted(knowing: Sessions) -> None:
    assert knowing.verify(forged(SECRET), START) == KNOWN


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "another"},
        {"iss": None},
        {"iss": ["comfyweb"]},
        {"sub": "somebody"},
        {"sub": None},
        {"iat": None},
        {"exp": None},
        {"exp": int(KNOWN.expires_at.timestamp()) + 3600},
        {"exp": "tomorrow"},
        {"jti": "unknown"},
        {"jti": None},
        {"jti": ["known"]},
        {"purpose": "ticket"},
        {"purpose": "host"},
        {"purpose": None},
        {"nbf": int(START.timestamp()) + 10**9},
    ],
)
async def test_a_token_with_other_claims_is_refused(knowing: Sessions, changed: dict[str, object]) -> None:
    assert knowing.verify(forged(SECRET, changed=changed), START) is None


async def test_a_token_of_another_secret_or_algorithm_is_refused(knowing: Sessions) -> None:
    good = forged(SECRET)
    signature = good.rpartition(".")[2]
    for token in (
        forged(OTHER_SECRET),
        forged(SECRET, "HS512"),
        forged(SECRET, "HS384"),
        forged(rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256"),
        forged("", "none"),
        unsigned({"alg": "none", "typ": "JWT"}, good),
        unsigned({"alg": "none", "typ": "JWT"}, good, signature),
        unsigned({"alg": "HS512", "typ": "JWT"}, good, signature),
        unsigned({"alg": "RS256", "typ": "JWT"}, good, signature),
        unsigned({"alg": "hs256", "typ": "JWT"}, good, signature),
    ):
        assert knowing.verify(token, START) is None


@pytest.mark.parametrize("junk", ["\n", "!", "=", " ", "\ud800", ".e30"])
async def test_junk_that_base64_would_skip_is_refused(knowing: Sessions, junk: str) -> None:
    assert knowing.verify(forged(SECRET) + junk, START) is None
    assert knowing.verify(junk + forged(SECRET), START) is None


async def test_rs256_whose_key_is_our_hmac_secret_is_refused(knowing: Sessions) -> None:
    as_hmac = forged(SECRET)
    head = unsigned({"alg": "RS256", "typ": "JWT"}, as_hmac).rpartition(".")[0]
    signature = jwt.get_algorithm_by_name("HS256").sign(head.encode(), SECRET.encode())
    token = f"{head}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"
    assert knowing.verify(token, START) is None


@given(position=st.integers(0, 200), letter=st.sampled_from("ABCxyz019-_.="))
def test_a_token_with_any_letter_changed_is_refused(position: int, letter: str) -> None:
    good = forged(SECRET)
    at = position % (len(good) - 1)  # the very last letter carries two bits that mean nothing
    bad = good[:at] + letter + good[at + 1 :]
    assert asyncio.run(knows()).verify(bad, START) == (KNOWN if bad == good else None)


@given(
    st.text()
    | st.binary()
    | st.integers()
    | st.none()
    | st.lists(st.text())
    | st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", max_size=300)
    | st.tuples(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=64)).map(
        lambda parts: ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    )
)
def test_garbage_is_nobody(token: object) -> None:
    assert asyncio.run(knows()).verify(token, START) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(claim=st.sampled_from(["iss", "sub", "exp", "jti", "purpose"]), value=JSON)
def test_well_signed_claims_of_any_type_are_nobody(claim: str, value: object) -> None:
    assert asyncio.run(knows()).verify(forged(SECRET, changed={claim: value}), START) is None


async def knows() -> Sessions:
    bench = Bench(store=Store(rows={KNOWN.jti: KNOWN}))
    sessions = bench.sessions()
    await sessions.refresh()
    return sessions


async def test_deeply_nested_json_is_nobody(knowing: Sessions) -> None:
    nested = base64.urlsafe_b64encode(b"[" * 700).decode().rstrip("=")

    def verify_below(calls: int) -> Session | None:
        return verify_below(calls - 1) if calls else knowing.verify(f"{nested}.e30.e30", START)

    assert verify_below(calls=300) is None
    assert knowing.verify("a." * 100_000, START) is None


async def test_a_session_is_live_until_its_last_moment_whether_asked_before_or_not(bench: Bench) -> None:
    sessions = bench.sessions()
    token, session = await sessions.login(PASSWORD, HERE)
    just_before = session.expires_at - timedelta(microseconds=1)
    assert sessions.verify(token, just_before) == session
    assert sessions.is_live(session.jti, just_before)
    assert sessions.verify(token, session.expires_at) is None
    assert not sessions.is_live(session.jti, session.expires_at)


async def test_while_rotating_all_secrets_verify_and_the_first_signs(bench: Bench) -> None:
    old, _ = await bench.sessions(SECRET).login(PASSWORD, HERE)
    rotating = bench.sessions(OTHER_SECRET, SECRET)
    await rotating.refresh()
    new, session = await rotating.login(PASSWORD, HERE)
    assert rotating.verify(old, START)
    assert rotating.verify(new, START) == session
    rotated = bench.sessions(OTHER_SECRET)
    await rotated.refresh()
    assert rotated.verify(new, START) == session
    assert rotated.verify(old, START) is None


async def test_a_known_token_is_not_decoded_again_until_somebody_logs_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = bench.sessions()
    token, session = await sessions.login(PASSWORD, HERE)
    _, other = await sessions.login(PASSWORD, HERE)
    decoded: list[str] = []
    decode = jwt.decode

    def counting(token: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        decoded.append(token)
        return decode(token, *args, **kwargs)

    monkeypatch.setattr(jwt, "decode", counting)
    assert [sessions.verify(token, START) for _ in range(5)] == [session] * 5
    assert decoded == [token]
    await sessions.end(other)
    assert sessions.verify(token, START) == session
    assert decoded == [token, token]
    await sessions.end(session)
    assert sessions.verify(token, START) is None


async def test_the_token_cache_is_bounded(bench: Bench) -> None:
    sessions = bench.sessions()
    bench.store.rows = {
        str(n): Session(jti=str(n), issued_at=KNOWN.issued_at, expires_at=KNOWN.expires_at)
        for n in range(CACHED_TOKENS + 10)
    }
    await sessions.refresh()
    for jti in bench.store.rows:
        assert sessions.verify(forged(SECRET, changed={"jti": jti}), START)
    assert len(sessions._jti_of) == CACHED_TOKENS


# -- logging out -----------------------------------------------------------------------------------------------------


async def test_logging_out_ends_this_session_only(bench: Bench) -> None:
    sessions = bench.sessions()
    token, session = await sessions.login(PASSWORD, HERE)
    other_token, other = await sessions.login(PASSWORD, HERE)
    assert sessions.verify(token, START)
    await sessions.end(session)
    await sessions.refresh()
    assert sessions.verify(token, START) is None
    assert not sessions.is_live(session.jti, START)
    assert sessions.verify(other_token, START) == other
    assert bench.store.ended == {session.jti: START}


async def test_logging_everybody_out_ends_all_and_lets_them_in_again(bench: Bench) -> None:
    sessions = bench.sessions()
    tokens = [(await sessions.login(PASSWORD, HERE))[0] for _ in range(3)]
    await sessions.end_all()
    assert [sessions.verify(token, START) for token in tokens] == [None] * 3
    token, session = await sessions.login(PASSWORD, HERE)
    await sessions.refresh()
    assert sessions.verify(token, START) == session


class SlowStore(Store):
    """Answers a login and a read only when let go, with what it had when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def add(self, session: Session) -> None:
        await super().add(session)
        await self._hold()

    async def live(self, now: Any) -> Any:
        rows = await super().live(now)
        await self._hold()
        return rows

    async def _hold(self) -> None:
        self.asked.set()
        await self.go.wait()


async def test_a_logout_during_a_read_is_not_undone_by_it() -> None:
    bench = Bench(store=SlowStore())
    assert isinstance(bench.store, SlowStore)
    bench.store.rows[KNOWN.jti] = KNOWN
    sessions = bench.sessions()
    reading = asyncio.create_task(sessions.refresh())
    await bench.store.asked.wait()
    ending = asyncio.create_task(sessions.end(KNOWN))
    await asyncio.sleep(0)
    bench.store.go.set()
    await asyncio.gather(reading, ending)
    assert not sessions.is_live(KNOWN.jti, START)


async def test_a_login_being_stored_while_everybody_is_logged_out_is_logged_out_too() -> None:
    bench = Bench(store=SlowStore())
    assert isinstance(bench.store, SlowStore)
    sessions = bench.sessions()
    entering = asyncio.create_task(sessions.login(PASSWORD, HERE))
    await bench.store.asked.wait()
    ending = asyncio.create_task(sessions.end_all())
    await asyncio.sleep(0)
    bench.store.go.set()
    (token, _), _ = await asyncio.gather(entering, ending)
    assert sessions.verify(token, START) is None


# -- restarts, other workers, and a store that fails -----------------------------------------------------------------


async def test_sessions_survive_a_restart_once_they_are_read(bench: Bench) -> None:
    token, session = await bench.sessions().login(PASSWORD, HERE)
    restarted = bench.sessions()
    assert restarted.verify(token, START) is None
    await restarted.refresh()
    assert restarted.verify(token, START) == session


async def test_a_logout_at_another_worker_counts_here_from_the_next_refresh(bench: Bench) -> None:
    here, there = bench.sessions(), bench.sessions()
    token, session = await here.login(PASSWORD, HERE)
    assert here.verify(token, START)
    await there.refresh()
    await there.end(session)
    await here.refresh()
    assert here.verify(token, START) is None


async def test_while_the_store_fails_nobody_gets_in_and_who_is_in_stays(bench: Bench) -> None:
    sessions = bench.sessions()
    token, session = await sessions.login(PASSWORD, HERE)
    bench.store.down = True
    with pytest.raises(SessionsUnavailable) as caught:
        await sessions.login(PASSWORD, HERE)
    assert isinstance(caught.value.__cause__, StoreDown)
    await sessions.refresh()
    assert sessions.verify(token, START) == session


async def test_a_logout_that_could_not_be_stored_counts_at_once_and_is_stored_later(bench: Bench) -> None:
    sessions = bench.sessions()
    token, session = await sessions.login(PASSWORD, HERE)
    bench.store.down = True
    with pytest.raises(SessionsUnavailable):
        await sessions.end(session)
    assert sessions.verify(token, START) is None
    await sessions.refresh()
    bench.store.down = False
    bench.clock.forward(seconds=30)
    await sessions.refresh()
    assert sessions.verify(token, START) is None
    assert bench.store.ended == {session.jti: START}


async def test_a_logout_of_everybody_that_is_stored_late_spares_later_logins(bench: Bench) -> None:
    sessions = bench.sessions()
    old, _ = await sessions.login(PASSWORD, HERE)
    bench.store.down = True
    with pytest.raises(SessionsUnavailable):
        await sessions.end_all()
    assert sessions.verify(old, START) is None
    bench.store.down = False
    new, session = await sessions.login(PASSWORD, HERE)
    await sessions.refresh()
    assert sessions.verify(old, START) is None
    assert sessions.verify(new, START) == session


async def test_what_is_remembered_of_ended_sessions_is_dropped_when_they_would_have_expired(clock: Clock) -> None:
    bench = Bench(clock=clock)
    sessions = bench.sessions()
    _, session = await sessions.login(PASSWORD, HERE)
    await sessions.end(session)
    clock.forward(hours=24)
    await sessions.refresh()
    assert sessions._ended == {}


# -- several workers -------------------------------------------------------------------------------------------------


async def test_a_login_at_another_worker_counts_here_as_soon_as_it_is_met(bench: Bench) -> None:
    here, elsewhere = bench.sessions(), bench.sessions()
    token, session = await elsewhere.login(PASSWORD, HERE)
    assert here.verify(token, bench.clock()) is None
    await here.meet(token)
    assert here.verify(token, bench.clock()) == session


async def test_all_requests_that_come_at_once_meet_it(bench: Bench) -> None:
    here = bench.sessions()
    token, session = await bench.sessions().login(PASSWORD, HERE)

    async def comes() -> Session | None:
        await here.meet(token)
        return here.verify(token, bench.clock())

    assert await asyncio.gather(*(comes() for _ in range(5))) == [session] * 5


async def test_a_token_that_does_not_count_is_looked_up_once_and_made_up_ones_never(bench: Bench) -> None:
    here = bench.sessions()
    token, session = await bench.sessions().login(PASSWORD, HERE)
    await bench.store.end(session.jti, bench.clock())
    forged = jwt.encode(claims_of(token) | {"jti": "another"}, OTHER_SECRET, "HS256")
    bench.store.reads = 0
    for _ in range(3):
        for stranger in (token, forged, "garbage", "a.b.c", "x" * 5000):
            await here.meet(stranger)
    assert bench.store.reads == 1
    assert here.verify(token, bench.clock()) is None


async def test_who_was_logged_out_here_is_not_met_again_while_the_store_is_down(bench: Bench) -> None:
    here = bench.sessions()
    token, session = await here.login(PASSWORD, HERE)
    bench.store.down = True
    with pytest.raises(SessionsUnavailable):
        await here.end(session)
    await here.meet(token)
    bench.store.down = False
    await here.meet(token)
    assert here.verify(token, bench.clock()) is None
