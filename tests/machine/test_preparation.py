"""What a machine must carry before it starts."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from comfyweb.machine.model import Scheduling
from comfyweb.machine.preparation import (
    SCRIPT_MARK,
    foreign_script,
    metadata_changes,
    needs_scheduling,
    run_seconds,
    wanted_metadata,
)

METADATA = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.sampled_from(["", "1", "2"]))
OURS = f"#!/bin/sh\n{SCRIPT_MARK} 1.2\ntrue\n"


def test_only_what_differs_is_changed_and_an_empty_value_deletes() -> None:
    seen = {"domain_name": "a.example", "auth_pass": "old", "ssh-keys": "theirs"}
    wanted = {"domain_name": "b.example", "ssl_email": "me@example", "auth_pass": "", "auth_user": ""}
    assert metadata_changes(seen, wanted) == {
        "domain_name": "b.example",
        "ssl_email": "me@example",
        "auth_pass": "",
    }


def test_a_key_without_a_value_is_deleted_when_it_must_be_absent() -> None:
    assert metadata_changes({"auth_user": ""}, {"auth_user": ""}) == {"auth_user": ""}


@given(METADATA, METADATA)
def test_applying_the_changes_leaves_nothing_to_change_and_strangers_alone(
    seen: dict[str, str], wanted: dict[str, str]
) -> None:
    changes = metadata_changes(seen, wanted)
    after = {key: value for key, value in {**seen, **changes}.items() if not (key in changes and not value)}
    assert metadata_changes(after, wanted) == {}
    assert {k: v for k, v in after.items() if k not in wanted} == {k: v for k, v in seen.items() if k not in wanted}


def test_a_script_goes_into_one_of_its_two_keys_never_both() -> None:
    assert wanted_metadata({"startup-script-url": "gs://b/x", "a": "1"}, {"startup-script": OURS}) == {
        "startup-script-url": "gs://b/x",
        "startup-script": "",
        "a": "1",
    }


def test_a_script_that_is_not_ours_stays() -> None:
    theirs = {"startup-script": "#!/bin/sh\ntheirs\n"}
    assert foreign_script({"startup-script-url": "gs://b/x"}, theirs)
    assert wanted_metadata({"startup-script-url": "gs://b/x", "a": "1"}, theirs) == {"a": "1"}
    assert wanted_metadata({"startup-script": OURS}, {"startup-script-url": "gs://theirs/x"}) == {}


def test_our_own_script_is_renewed_and_so_is_a_url_that_somebody_names() -> None:
    assert wanted_metadata({"startup-script": OURS + "2"}, {"startup-script": OURS})["startup-script"] == OURS + "2"
    wanted = wanted_metadata({"startup-script-url": "gs://b/2"}, {"startup-script-url": "gs://b/1"})
    assert wanted["startup-script-url"] == "gs://b/2"


def test_without_a_script_of_ours_neither_key_is_touched() -> None:
    seen = {"startup-script-url": "gs://theirs/x"}
    assert not foreign_script({"startup-script-url": ""}, seen)
    assert wanted_metadata({"startup-script-url": "", "a": "1"}, seen) == {"a": "1"}


def test_the_guard_is_set_when_it_is_missing_longer_shorter_or_deletes() -> None:
    ten = timedelta(hours=10)
    assert not needs_scheduling(Scheduling(max_run_seconds=36000, termination_action="STOP"), ten)
    assert needs_scheduling(Scheduling(), ten)
    assert needs_scheduling(Scheduling(max_run_seconds=36001, termination_action="STOP"), ten)
    assert needs_scheduling(Scheduling(max_run_seconds=36000, termination_action="DELETE"), ten)


@given(st.timedeltas(min_value=timedelta(0)))
def test_the_guard_is_always_one_that_compute_engine_accepts(max_run: timedelta) -> None:
    assert 30 <= run_seconds(max_run) <= 120 * 86400
    assert not needs_scheduling(Scheduling(max_run_seconds=run_seconds(max_run), termination_action="STOP"), max_run)
