"""The gate's cookies: 60 minutes past the last use, and never past the session, the boot or a revoke."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm_setup.host.cookies import Ledger, digest, set_cookie, values

HOUR = 3600.0
DAY = 24 * HOUR


def ledger(*, session_exp: float = DAY) -> Ledger:
    made = Ledger("boot-1")
    made.add("secret", session="s", session_exp=session_exp, now=0)
    return made


def test_over_https_the_cookie_also_goes_to_a_frame_on_another_site() -> None:
    assert set_cookie("v", https=True) == "comfyweb_gate=v; Path=/; HttpOnly; Secure; SameSite=None; Partitioned"


def test_over_http_the_cookie_is_for_its_own_site_alone() -> None:
    assert set_cookie("v", https=False) == "comfyweb_gate=v; Path=/; HttpOnly; SameSite=Lax"


def test_a_browser_may_send_one_cookie_per_jar_and_others_beside_them() -> None:
    assert values(["a=1; comfyweb_gate=x;comfyweb_gate=y", "comfyweb_gate=", "comfyweb_gatex=z"]) == ["x", "y"]


def test_of_thousands_of_cookies_the_first_few_are_looked_up() -> None:
    offered = "; ".join(f"comfyweb_gate={number}" for number in range(5000))
    assert values([offered, offered]) == [str(number) for number in range(16)]


def test_a_cookie_lives_an_hour_past_its_last_use() -> None:
    known = ledger()
    assert known.use(["secret"], now=HOUR - 1) is not None
    assert known.use(["secret"], now=2 * HOUR - 2) is not None
    assert known.use(["secret"], now=3 * HOUR - 2) is None


def test_a_running_job_keeps_living_cookies_and_wakes_no_dead_ones() -> None:
    known = ledger()
    known.touch_all(now=HOUR - 1)
    assert known.use(["secret"], now=2 * HOUR - 2) is not None
    known.touch_all(now=4 * HOUR)
    assert known.use(["secret"], now=4 * HOUR) is None


def test_an_open_websocket_keeps_its_cookie() -> None:
    known = ledger()
    for minute in range(0, 300, 30):
        assert known.touch(digest("secret"), now=minute * 60) is not None


def test_no_use_carries_a_cookie_past_its_session() -> None:
    known = ledger(session_exp=600)
    assert known.use(["secret"], now=599) is not None
    assert known.use(["secret"], now=600) is None


def test_a_revoke_kills_the_cookies_of_its_session_alone() -> None:
    known = ledger()
    known.add("other", session="t", session_exp=DAY, now=0)
    known.revoke("s")
    assert known.use(["secret"], now=1) is None
    assert known.use(["secret", "other"], now=1) is not None


def test_the_gates_memory_opens_nothing() -> None:
    saved = json.dumps(ledger().to_json())
    assert "secret" not in saved
    assert ledger().use([digest("secret")], now=1) is None


def test_cookies_outlive_the_gates_process_but_not_the_boot() -> None:
    saved = json.loads(json.dumps(ledger().to_json()))
    assert Ledger.from_json(saved, boot_id="boot-1").use(["secret"], now=1) is not None
    assert Ledger.from_json(saved, boot_id="boot-2").use(["secret"], now=1) is None


def test_dead_cookies_are_forgotten() -> None:
    for kept, more in ((ledger(), 1), (ledger(), 0)):
        if more:
            kept.add("another", session="s", session_exp=3 * DAY, now=2 * DAY)
        else:
            kept.touch_all(now=2 * DAY)
        assert str(kept.to_json()).count("digest") == more


def test_what_is_too_long_for_a_cookie_is_none() -> None:
    assert values([f"comfyweb_gate={'x' * 128}"]) == ["x" * 128]
    assert values([f"comfyweb_gate={'x' * 129}"]) == []


def test_a_value_that_no_browser_can_send_is_unknown() -> None:
    assert ledger().use(["\ud800"], now=1) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("digest", None), ("digest", 7), ("digest", "two words"), ("digest", "x" * 129)),
        *(("session", None), ("session", 7), ("session", "x" * 65)),
        *(("session_exp", None), ("session_exp", "9999999999"), ("used", None), ("used", "0"), ("used", [0])),
    ],
)
def test_one_spoilt_word_in_the_memory_of_a_cookie_is_enough(field: str, value: object) -> None:
    made = Ledger("boot-1")
    made.add("secret", session="x" * 64, session_exp=DAY, now=0)
    saved = json.loads(json.dumps(made.to_json()))
    assert Ledger.from_json(saved, boot_id="boot-1").use(["secret"], now=1) is not None
    saved["passes"][0][field] = value
    assert Ledger.from_json(saved, boot_id="boot-1").to_json() == {"boot_id": "boot-1", "passes": []}


@pytest.mark.parametrize("saved", [None, [], {}, {"boot_id": "b"}, {"boot_id": "b", "passes": [1, {}, {"digest": 1}]}])
def test_a_spoilt_memory_opens_nothing(saved: object) -> None:
    assert Ledger.from_json(saved, boot_id="b").to_json() == {"boot_id": "b", "passes": []}


@given(headers=st.lists(st.text(), max_size=5))
def test_garbage_in_cookie_headers_is_a_strangers(headers: list[str]) -> None:
    assert ledger().use(values(headers), now=1) is None


STEPS = st.lists(
    st.tuples(st.sampled_from(["use", "touch", "touch_all", "revoke", "restart"]), st.floats(-HOUR, 3 * HOUR)),
    max_size=30,
)


@given(steps=STEPS, session_exp=st.floats(0, DAY))
def test_no_cookie_outlives_its_session_or_a_revoke(steps: list[tuple[str, float]], session_exp: float) -> None:
    known = ledger(session_exp=session_exp)
    now, revoked = 0.0, False
    for step, passed in steps:
        now += passed
        if step == "revoke":
            known.revoke("s")
            revoked = True
        elif step == "restart":
            known = Ledger.from_json(known.to_json(), boot_id="boot-1")
        elif step == "touch_all":
            known.touch_all(now=now)
        else:
            found = known.use(["secret"], now=now) if step == "use" else known.touch(digest("secret"), now=now)
            assert found is None or (now < session_exp and not revoked)
