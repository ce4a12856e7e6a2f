"""What the keeper makes of what it sees: the idle table, drains, holds, restarts of its own, and its words."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.host.examples import BOOT_ID, WALL, fixture
from tests.host.test_tokens import token
from vm_setup.base.comfyui import Look, Reached
from vm_setup.host.boot import Boot
from vm_setup.host.commands import CancelDrain, Command, Extend, KeepAlive, Revoke, StartDrain
from vm_setup.host.deadman import Keeper as KeeperFile
from vm_setup.host.hang import SILENT_SECONDS, SILENT_WITH_JOBS_SECONDS
from vm_setup.host.idle import LONGEST_HOLD_SECONDS, LONGEST_SILENCE_SECONDS
from vm_setup.host.messages import Now, Step
from vm_setup.host.tokens import Claims, Request
from vm_setup.keeper.judge import STARTING_SECONDS, Judge
from vm_setup.keeper.seen import Card, Seen, Space
from vm_setup.keeper.words import NO_CARD, status_line

LIMIT = 1800.0
CARD = Card(name="Tesla T4", used_mib=1, total_mib=2, percent=0)
SPACE = Space(free_bytes=60 * 10**9, total_bytes=100 * 10**9)


def never(*_: object) -> bool:
    return False


def always(*_: object) -> bool:
    return True


@dataclass
class Life:
    """A machine's life: `wall` is what the wall clock shows at boot, `saved` the keeper's file."""

    boot: float = 100.0
    wall: float = WALL
    judge: Judge = field(init=False)

    def __post_init__(self) -> None:
        self.judge = Judge(boot_id=BOOT_ID, version="1", now=self.now, verify=never)

    @property
    def now(self) -> Now:
        return Now(boot=self.boot, wall=self.wall + self.boot)

    def restart_keeper(self) -> None:
        saved = json.loads(json.dumps(self.judge.to_json(self.now)))
        self.judge = Judge(boot_id=BOOT_ID, version="1", now=self.now, verify=never, saved=saved)

    def see(self, running: int | None = 0, *, reached: Reached = Reached.ANSWERED, **more: Any) -> str:
        ended = more.pop("ended", None)
        asked = running if reached is Reached.ANSWERED else None
        look = Look(began=self.boot, reached=reached, running=asked, pending=None if asked is None else 0, ended=ended)
        usual: dict[str, Any] = {"look": look, "process": 7, "card": CARD, "space": SPACE}
        self.judge.see(Seen(**{**usual, **more}), now=self.now)
        return self.judge.why_power_off(self.now)

    def goes_off(self, seconds: float, running: int | None = 0, **more: Any) -> float | None:
        """Let time pass in steps of 10 s; return after how many seconds the machine powers off."""
        began = self.boot
        while self.boot < began + seconds:
            self.boot += 10
            if self.see(running, **more):
                return self.boot - began
        return None

    def order(self, command: Command) -> None:
        claims = Claims(jti="j", session="s", session_exp=self.now.wall + 60, exp=self.now.wall + 60, rest={})
        self.judge.carry_out(command, claims, now=self.now)


@pytest.fixture
def life() -> Life:
    made = Life()
    made.see(0)
    return made


def test_a_machine_that_nobody_uses_goes_off_at_its_time(life: Life) -> None:
    assert life.goes_off(7200) == LIMIT


def test_one_whose_comfyui_never_starts_goes_off_too() -> None:
    assert Life().goes_off(7200, reached=Reached.REFUSED) == LIMIT


def test_a_short_limit_begins_only_when_comfyui_answers_or_has_had_its_time_to_start() -> None:
    judged = Life()
    saved = {**judged.judge.to_json(judged.now), "limit": 60.0}
    judged.judge = Judge(boot_id=BOOT_ID, version="1", now=judged.now, verify=never, saved=saved)
    assert judged.goes_off(7200, reached=Reached.REFUSED) == STARTING_SECONDS


def test_a_job_keeps_it_on_and_the_clock_starts_at_its_end(life: Life) -> None:
    assert life.goes_off(20000, running=1) is None
    assert life.goes_off(7200) == LIMIT + 10


@pytest.mark.parametrize("jump", [-1e9, -3600.0, 3600.0, 1e9])
def test_a_wall_clock_that_jumps_changes_nothing(life: Life, jump: float) -> None:
    assert life.goes_off(900) is None
    life.wall += jump
    assert life.goes_off(7200) == LIMIT - 900


def test_restarts_of_the_keeper_are_no_use(life: Life) -> None:
    for _ in range(17):
        assert life.goes_off(100) is None
        life.restart_keeper()
    assert life.goes_off(7200) == LIMIT - 1700


def test_a_keeper_that_restarts_during_a_job_knows_of_it(life: Life) -> None:
    life.see(1)
    life.boot += 1000
    life.restart_keeper()
    life.see(0)
    assert life.goes_off(7200) == LIMIT


def test_a_file_of_another_boot_or_of_nonsense_is_a_first_start() -> None:
    for saved in ({"boot_id": "other", "stopping": "idle"}, {"boot_id": BOOT_ID, "idle": 5, "acks": 1, "tokens": []}):
        judge = Judge(boot_id=BOOT_ID, version="1", now=Now(boot=500, wall=WALL), verify=never, saved=saved)
        assert not judge.stopping
        assert judge.report(Now(boot=500, wall=WALL)).idle.used == 500


def test_input_and_keep_alive_are_use(life: Life) -> None:
    assert life.goes_off(1700) is None
    life.judge.note("input", now=life.now)
    assert life.goes_off(1700) is None
    life.order(KeepAlive())
    assert life.goes_off(7200) == LIMIT


def test_a_job_shorter_than_the_gap_between_looks_is_use(life: Life) -> None:
    life.see(0, ended=["a@1"])
    assert life.goes_off(1700, ended=["a@1"]) is None
    life.see(0, ended=["b@2", "a@1"])
    assert life.goes_off(7200, ended=["b@2", "a@1"]) == LIMIT


def test_jobs_that_were_over_before_and_a_history_that_is_cleared_are_no_use(life: Life) -> None:
    life.see(0, ended=["a@1", "b@2"])
    life.restart_keeper()
    life.see(0, ended=["b@2"])
    life.see(0, ended=[])
    life.see(0, ended=["a@1"])
    assert life.goes_off(7200) == LIMIT


def test_the_jobs_that_the_first_look_finds_over_are_no_use() -> None:
    life = Life()
    life.see(0, reached=Reached.SILENT)
    life.boot += 1000
    life.see(0, ended=["a@1"])
    assert life.judge.report(life.now).idle.kind == "ready"


def test_a_silent_comfyui_with_jobs_keeps_it_on_for_an_hour_and_says_so(life: Life) -> None:
    life.see(1, process=7)
    assert life.goes_off(LONGEST_SILENCE_SECONDS - 20, reached=Reached.SILENT, card=None) is None
    assert any("count as running" in warning for warning in life.judge.report(life.now).warnings)
    assert life.goes_off(600, reached=Reached.SILENT, card=None) == 20


def test_a_card_at_work_behind_a_silence_is_a_job_that_nobody_saw_come(life: Life) -> None:
    working = Card(name="T4", percent=80)
    assert life.goes_off(3500, reached=Reached.SILENT, card=working) is None
    assert life.goes_off(4000, reached=Reached.SILENT, card=working) is not None


def test_when_it_answers_again_the_clock_starts_anew(life: Life) -> None:
    life.see(1)
    assert life.goes_off(3000, reached=Reached.SILENT) is None
    assert life.goes_off(7200) == LIMIT + 10


def test_the_jobs_of_a_process_that_is_gone_are_over(life: Life) -> None:
    life.see(1)
    assert life.goes_off(7200, reached=Reached.REFUSED) == LIMIT + 10


def test_a_hold_keeps_it_on_and_one_that_has_run_out_doesnt(life: Life) -> None:
    assert life.goes_off(9000, holds={"install": life.boot + 5000}) == 5000


def test_when_a_hold_is_taken_away_comfyui_still_has_its_time_to_start() -> None:
    life = Life()
    holds = {"install": life.boot + 9000}
    assert life.goes_off(3000, holds=holds, reached=Reached.REFUSED) is None
    assert life.goes_off(600, reached=Reached.REFUSED) is None
    life.restart_keeper()
    life.see(0)
    assert life.goes_off(7200) == LIMIT


def test_a_hold_that_is_taken_away_from_a_comfyui_that_never_starts_ends_soon_after() -> None:
    life = Life()
    life.goes_off(3000, holds={"install": life.boot + 9000}, reached=Reached.REFUSED)
    assert life.goes_off(7200, reached=Reached.REFUSED) == STARTING_SECONDS + 10


def test_a_hold_that_is_taken_away_from_a_comfyui_that_answers_lasts_no_longer_than_the_limit(life: Life) -> None:
    saved = {**life.judge.to_json(life.now), "limit": 120.0}
    life.judge = Judge(boot_id=BOOT_ID, version="1", now=life.now, verify=never, saved=saved)
    life.see(0, holds={"installing": life.boot + 300})
    assert life.goes_off(7200) == 130


def test_a_comfyui_that_ends_for_good_is_told_of_after_a_minute_until_it_answers(life: Life) -> None:
    def told() -> bool:
        return any("ComfyUI ended at" in one for one in life.judge.report(life.now).warnings)

    life.goes_off(50, reached=Reached.REFUSED)
    assert not told()
    life.goes_off(30, reached=Reached.REFUSED)
    assert told()
    life.see(0)
    assert not told()
    started = Life()
    started.goes_off(600, reached=Reached.REFUSED)
    assert not any("ended" in one for one in started.judge.report(started.now).warnings), "it has not answered yet"


def test_a_drain_waits_for_the_data_disk_until_its_deadline_and_says_so() -> None:
    life = Life()
    life.order(StartDrain(600))
    holds = {"disk": life.boot + 9000}
    assert life.see(reached=Reached.REFUSED, holds=holds) == ""
    assert any("data disk is worked on" in one for one in life.judge.report(life.now).warnings)
    assert life.goes_off(7200, reached=Reached.REFUSED, holds=holds) == 600
    life = Life()
    life.order(StartDrain(600))
    life.see(reached=Reached.REFUSED, holds=holds)
    assert life.see(reached=Reached.REFUSED) == "drained"


def test_a_hold_ends_after_a_day_however_often_it_is_written(life: Life) -> None:
    began = life.boot
    while not life.see(holds={"install": life.boot + 900}):
        life.boot += 600
        life.restart_keeper()
        assert life.boot < began + 2 * LONGEST_HOLD_SECONDS
    assert life.boot >= began + LONGEST_HOLD_SECONDS


def test_an_extension_moves_the_stop(life: Life) -> None:
    life.order(Extend(60))
    life.restart_keeper()
    assert life.goes_off(9000) == LIMIT + 3600


def test_a_drain_ends_with_the_last_job(life: Life) -> None:
    life.see(2)
    life.order(StartDrain(1200))
    assert life.goes_off(600, running=2) is None
    life.restart_keeper()
    assert life.goes_off(600, running=0) == 10


def test_a_drain_ends_at_its_deadline_and_a_cancelled_one_doesnt(life: Life) -> None:
    life.order(StartDrain(1200))
    life.order(CancelDrain())
    assert life.goes_off(1300, running=1) is None
    life.order(StartDrain(1200))
    assert life.goes_off(7200, running=1) == 1200


def test_a_drain_that_stays_waits_for_its_deadline(life: Life) -> None:
    life.order(StartDrain(1200, stay=True))
    assert life.goes_off(7200) == 1200


def test_a_drain_does_not_wait_for_a_comfyui_that_is_not_there(life: Life) -> None:
    life.see(1)
    life.order(StartDrain(1200))
    assert life.goes_off(600, reached=Reached.SILENT) is None
    assert life.goes_off(600, reached=Reached.REFUSED) == 10


def test_a_revoked_session_outlives_the_keepers_process(life: Life) -> None:
    life.order(Revoke("s-2"))
    life.restart_keeper()
    saved: Any = life.judge.to_json(life.now)
    assert list(saved["tokens"]["revoked"]) == ["s-2"]


def test_a_hang_is_ended_by_a_restart_of_comfyui_which_is_told(life: Life) -> None:
    life.boot += 10
    life.see(reached=Reached.SILENT)
    life.boot += SILENT_SECONDS - 1
    life.see(reached=Reached.SILENT)
    assert not life.judge.should_restart_comfyui(life.now)
    life.boot += 1
    life.see(reached=Reached.SILENT)
    assert life.judge.should_restart_comfyui(life.now)
    assert not life.judge.should_restart_comfyui(life.now)
    assert any("restarted" in warning for warning in life.judge.report(life.now).warnings)


def test_with_jobs_it_is_given_longer_and_while_the_card_works_for_ever(life: Life) -> None:
    life.see(1)
    working = Card(name="T4", percent=80)
    assert life.goes_off(2000, reached=Reached.SILENT, card=working) is None
    assert not life.judge.should_restart_comfyui(life.now)
    life.goes_off(SILENT_WITH_JOBS_SECONDS - 20, reached=Reached.SILENT)
    assert not life.judge.should_restart_comfyui(life.now)
    life.goes_off(40, reached=Reached.SILENT)
    assert life.judge.should_restart_comfyui(life.now)


def test_without_a_verifier_no_command_in_metadata_is_obeyed() -> None:
    judge = Judge(boot_id=BOOT_ID, version="1", now=Now(boot=1, wall=WALL), verify=None)
    asked = judge.read({"comfyweb-command": '["a.b.c"]'}, audience="host:a/b/c", now=Now(boot=1, wall=WALL))
    assert (asked.orders, judge.checks) == ([], False)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({"card": None}, NO_CARD),
        ({"card": Card(name="")}, NO_CARD),
        ({"space": None}, "disk doesn't answer"),
        ({"space": Space(free_bytes=10**9, total_bytes=100 * 10**9)}, "nearly full: 1.0 of 100 GB"),
        ({"space": Space(free_bytes=10**12, total_bytes=10**13, read_only=True)}, "can only be read"),
        ({"boot": Boot(warnings=["No data disk."])}, "No data disk."),
    ],
)
def test_what_is_wrong_with_the_machine_is_said(life: Life, seen: dict[str, Any], words: str) -> None:
    assert life.judge.report(life.now).warnings == []
    life.see(**seen)
    assert [words in warning for warning in life.judge.report(life.now).warnings] == [True]


@pytest.mark.parametrize(
    ("gib", "enough"), [(10, 2), (40, 2), (100, 5), (400, 20), (4000, 20)], ids=lambda size: f"{size}-GiB"
)
def test_a_disk_is_nearly_full_below_5_percent_but_not_below_less_than_2_gib_nor_above_20(
    life: Life, gib: int, enough: int
) -> None:
    for free, told in ((enough << 30, False), ((enough << 30) - 1, True)):
        life.see(space=Space(free_bytes=free, total_bytes=gib << 30))
        assert any("nearly full" in warning for warning in life.judge.report(life.now).warnings) is told


def test_a_missing_card_that_the_boot_has_told_of_is_not_told_twice(life: Life) -> None:
    boot = Boot(steps=[Step(name="driver", state="failed", detail="no card")], warnings=["There is no card."])
    life.see(card=None, boot=boot)
    assert life.judge.report(life.now).warnings == ["There is no card."]


def test_before_anything_was_looked_at_nothing_is_wrong() -> None:
    life = Life()
    assert life.judge.report(life.now).warnings == []
    life.see(card=None, space=None, looked_at=False)
    assert life.judge.report(life.now).warnings == []


def test_an_idle_limit_that_is_no_number_is_said(life: Life) -> None:
    life.judge.configure(life.judge.read({"comfyweb-idle-minutes": "soon"}, audience="", now=life.now), now=life.now)
    assert "comfyweb-idle-minutes" in life.judge.report(life.now).warnings[0]


def test_the_dead_man_switch_can_read_what_the_keeper_writes(life: Life) -> None:
    life.see(1)
    read = KeeperFile.from_json(life.judge.to_json(life.now), now=life.boot)
    assert read == KeeperFile(at=life.boot, used=life.boot, busy=life.boot, limit=LIMIT)


def test_the_status_line_says_why_it_is_on_and_until_when(life: Life) -> None:
    def line() -> str:
        return status_line(life.judge.report(life.now), life.judge.stopping)

    assert line() == "On: last use (ready) 2026-11-24T00:01:40.000Z; stops at 2026-11-24T00:31:40.000Z"
    life.see(holds={"install": life.boot + 9000})
    assert "held by install; stops at 2026-11-24T02:31:40.000Z" in line()
    life.see(3)
    assert line() == "On: 3 prompts run or wait"
    life.order(StartDrain(60))
    assert line() == "Draining until 2026-11-24T00:02:40.000Z, 3 prompts run or wait"
    life.judge.stopping = "idle"
    assert line() == "Powering off: idle"


def test_comfyuis_step_runs_with_its_process_and_is_done_when_it_answers() -> None:
    life = Life()
    life.see(reached=Reached.REFUSED, process=None, expected_start_seconds=8.0)
    assert life.judge.report(life.now).steps == [Step(name="comfyui", expected_seconds=8.0)]
    life.see(reached=Reached.REFUSED, expected_start_seconds=8.0)
    life.boot += 5
    step = life.judge.report(life.now).steps[0]
    assert (step.state, step.seconds, life.judge.report(life.now).phase) == ("running", 5.0, "warming")
    life.see(0)
    life.boot += 100
    step = life.judge.report(life.now).steps[0]
    assert (step.state, step.seconds, life.judge.report(life.now).phase) == ("done", 5.0, "ready")


def test_calls_that_are_refused_are_written_down_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    life, request = Life(), Request(method="GET", url="https://x/_host/status", body=b"")
    for _ in range(3):
        for _ in range(50):
            assert life.judge.check("x.y.z", request, now=life.now) is None
        life.boot += 1
    assert len([line for line in caplog.messages if "refused" in line]) == 3


@pytest.mark.parametrize(
    ("path", "body", "signed", "obeyed"),
    [
        ("/_host/drain", {"deadline_seconds": 60}, -1, False),
        ("/_host/drain", {"deadline_seconds": 60}, 0, True),
        ("/_host/extend", {"minutes": 60}, -200, False),
        ("/_host/revoke", {"session": "s"}, -200, True),
    ],
)
def test_what_was_ordered_before_this_boot_is_over_but_for_a_revoke(
    path: str,
    body: dict[str, object],
    signed: float,
    obeyed: bool,  # noqa: FBT001 - a table's column
) -> None:
    life = Life()
    judge = Judge(boot_id=BOOT_ID, version="1", now=life.now, verify=always)
    usual: dict[str, Any] = {**fixture("command_claims")[0], "exp": life.now.wall + 300, "iat": life.wall + signed}
    said = token({**usual, "htu": path, "body": body})
    keys, origin = json.dumps(fixture("keys")), usual["iss"]
    attributes = {"comfyweb-command": json.dumps([said]), "comfyweb-keys": keys, "comfyweb-app-origin": origin}
    assert bool(judge.read(attributes, audience=usual["aud"], now=life.now).orders) is obeyed
