"""The keeper's word to the gate: whom to believe, who is thrown out, and that the keeper lives."""

import grp
import os
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.demo.standin_machine import APP, AUDIENCE, SESSION
from tests.host.keeping import Keeping, keeping
from tests.host.surroundings import has, load, until
from vm_setup.base.comfyui import Look
from vm_setup.host.gate import EVERY_SECONDS, Told, source_of
from vm_setup.keeper import cutting, gate


def told(host: Keeping) -> Told:
    return Told.from_json(load(host.run / "gate.json"))


def test_the_gate_is_told_whom_to_believe_and_that_comfyui_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeping(tmp_path, monkeypatch) as host:
        host.start()
        until(lambda: told(host).ready and bool(told(host).trust.keys))
        assert (told(host).trust.issuer, told(host).trust.audience) == (APP, AUDIENCE)
        assert not told(host).draining
        assert not told(host).busy
        assert (host.run / "gate.json").stat().st_mode & 0o777 == 0o640


def test_a_revoke_and_a_drain_are_told_before_the_caller_hears_that_they_are_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keeping(tmp_path, monkeypatch) as host:
        host.comfyui.answers["/queue"] = {"queue_running": [["a job"]], "queue_pending": []}
        host.start()
        until(lambda: told(host).ready and bool(told(host).trust.keys) and told(host).busy)
        assert host.call("POST", "/_host/revoke", {"session": SESSION})[0] == 200
        assert SESSION in told(host).revoked
        assert host.call("POST", "/_host/drain", {"deadline_seconds": 600, "stay": True})[0] == 200
        assert (told(host).draining, told(host).stays) == (True, True)
        assert host.call("DELETE", "/_host/drain")[0] == 200
        assert (told(host).draining, told(host).stays) == (False, False)


def test_what_a_revoked_session_has_under_way_is_cut_off_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "_PAUSES_SECONDS", (0.0, 0.1))
    with keeping(tmp_path, monkeypatch) as host:
        host.start()
        until(lambda: told(host).ready and bool(told(host).trust.keys))
        assert host.call("POST", "/_host/revoke", {"session": SESSION})[0] == 200
        port = host.comfyui.url.rpartition(":")[2]
        cut = f"ss --kill --tcp --no-header src {source_of(SESSION)} dport = :{port}"
        until(lambda: host.programs.called == [cut, cut])
        host.settled()
        assert host.programs.called == [cut, cut]


@given(session=st.text(max_size=64))
def test_each_session_has_a_place_of_its_own_on_loopback(session: str) -> None:
    assert ip_address(source_of(session)) in ip_network("127.128.0.0/10")
    assert source_of(session) == source_of(session) != source_of(session + "x")


def test_no_prompt_is_taken_between_the_last_look_and_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with keeping(tmp_path, monkeypatch) as host:
        host.look_every = 1000
        host.start()
        until(lambda: host.saved.get("ready_at") and told(host).ready)
        assert host._keeper
        look, taken = host._keeper._last_look, list[bool]()

        def last_look() -> Look:
            taken.append(not told(host).draining)
            has(host.comfyui, running=1)  # it came just before
            return look()

        monkeypatch.setattr(host._keeper, "_last_look", last_look)
        host.clocks.pass_(1805)
        until(lambda: host.saved["idle"]["busy"])
        assert taken == [False]
        until(lambda: not told(host).draining)
        assert not host.programs.called


def test_a_sign_of_life_is_written_now_and_then_and_not_each_round(tmp_path: Path) -> None:
    paths = gate.Paths(root=tmp_path)
    word, file = gate.Word(paths), tmp_path / "run/comfyweb/gate.json"
    written: list[int] = []
    for second in range(11):
        word.tell(Told(at=float(second), ready=True), now=float(second))
        written.append(file.stat().st_ino)
    assert len(set(written[:5])) == 1
    assert load(file)["at"] == 2 * EVERY_SECONDS
    word.tell(Told(at=10.5), now=10.5)
    assert load(file)["ready"] is False


def test_the_gate_s_group_alone_may_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = grp.getgrgid(os.getgroups()[-1] if os.getgroups() else os.getgid())
    monkeypatch.setattr(gate, "USER", group.gr_name)
    gate.Word(gate.Paths(root=tmp_path)).tell(Told(at=1.0), now=1.0)
    file = tmp_path / "run/comfyweb/gate.json"
    assert file.stat().st_gid == group.gr_gid
    monkeypatch.setattr(gate, "USER", "no-such-group")
    gate.Word(gate.Paths(root=tmp_path)).tell(Told(at=2.0), now=2.0)
    assert load(file)["at"] == 2.0


def test_a_gate_that_can_not_be_told_keeps_nothing_from_going_on(tmp_path: Path) -> None:
    word = gate.Word(gate.Paths(root=tmp_path))
    (tmp_path / "run").write_text("in the way")
    word.tell(Told(at=1.0), now=1.0)
    (tmp_path / "run").unlink()
    word.tell(Told(at=1.0), now=1.0)
    assert load(tmp_path / "run/comfyweb/gate.json")["at"] == 1.0
