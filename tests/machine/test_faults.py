"""The words for what goes wrong, and how they are found."""

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyweb.machine.faults import FAULTS, MACHINE_FAULTS, NOT_LOOKED_YET, classify, in_vain, lacking, named, plain
from comfyweb.machine.model import Fault

WHERE = "'projects/studio/zones/us-central1-a/instances/comfyui-gpu'"
FULL = "The zone 'projects/studio/zones/us-central1-a' does not have enough resources available to fulfill the request."
RATE = (
    "Quota exceeded for quota group 'ReadGroup' and limit 'Read requests per user per 100 seconds' of service "
    "'compute.googleapis.com' for consumer 'project_number:1'."
)


@pytest.mark.parametrize(
    ("code", "message", "status", "row"),
    [
        ("ZONE_RESOURCE_POOL_EXHAUSTED", FULL, 503, "no-capacity"),
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", FULL, 503, "no-capacity"),
        ("REGION_RESOURCE_POOL_EXHAUSTED", FULL, 503, "no-capacity"),
        ("RESOURCE_POOL_EXHAUSTED", FULL, 503, "no-capacity"),
        ("GPU_STOCKOUT", "", None, "no-capacity"),
        ("insufficientCapacity", "", None, "no-capacity"),
        ("QUOTA_EXCEEDED", "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally.", 403, "quota-global"),
        ("quotaExceeded", "Quota 'NVIDIA_T4_GPUS' exceeded.  Limit: 1.0 in region us-central1.", 403, "quota"),
        ("QUOTA_EXCEEDED", "something new", 403, "quota"),
        ("quotaExceeded", RATE, 403, "rate-limit"),
        ("rateLimitExceeded", RATE, 403, "rate-limit"),
        ("RATE_LIMIT_EXCEEDED", RATE, 403, "rate-limit"),
        ("RESOURCE_OPERATION_RATE_EXCEEDED", "", None, "rate-limit"),
        ("", "slow down", 429, "rate-limit"),
        ("forbidden", f"Required 'compute.instances.start' permission for {WHERE}", 403, "permission"),
        ("IAM_PERMISSION_DENIED", "Permission denied", 403, "permission"),
        ("forbidden", "", 403, "permission"),
        ("SERVICE_ACCOUNT_ACCESS_DENIED", "The user does not have access to it.", 403, "act-as"),
        ("forbidden", "Ask a project owner to grant you the iam.serviceAccountUser role", 403, "act-as"),
        ("accessNotConfigured", "", 403, "api-disabled"),
        (
            "forbidden",
            "Compute Engine API has not been used in project 7 before or it is disabled.",
            403,
            "api-disabled",
        ),
        ("forbidden", "This API method requires billing to be enabled.", 403, "billing"),
        ("forbidden", "Location mars is not found or access is unauthorized.", 403, "place-not-found"),
        ("notFound", f"The resource {WHERE} was not found", 404, "not-found"),
        ("notFound", "The resource 'projects/studio/zones/mars' was not found", 404, "place-not-found"),
        ("notFound", "The resource 'projects/studio' was not found", 404, "place-not-found"),
        ("notFound", "Failed to find project studio", 404, "place-not-found"),
        ("RESOURCE_NOT_FOUND", "The resource 'projects/p/zones/z/disks/models' was not found", 404, "part-not-found"),
        ("notFound", "The resource 'projects/p/zones/z/operations/o-1' was not found", 404, "operation-forgotten"),
        ("authError", "Invalid Credentials", 401, "credentials-refused"),
        ("required", "Login Required.", 401, "credentials-refused"),
        ("RESOURCE_NOT_READY", f"The resource {WHERE} is not ready", 400, "not-ready"),
        ("resourceNotReady", f"The resource {WHERE} is not ready", 400, "not-ready"),
        (
            "conditionNotMet",
            "Supplied fingerprint does not match current metadata fingerprint.",
            412,
            "changed-meanwhile",
        ),
        ("OPERATION_CANCELED_BY_USER", "Operation was canceled by user 'me'.", 409, "called-off"),
        ("RESOURCE_IN_USE_BY_ANOTHER_RESOURCE", "", 400, "in-use"),
        ("backendError", "", 503, "unavailable"),
        ("", "SERVICE UNAVAILABLE", 503, "unavailable"),
        ("", "<html>Bad Gateway</html>", 502, "unavailable"),
        ("", "<html>Not here</html>", 404, "bad-answer"),
        ("required", "Invalid value for field 'zone'", 400, "unknown"),
        ("SOMETHING_NEW", "A thing broke.", 503, "unknown"),
        ("", "A thing broke.", None, "unknown"),
    ],
)
def test_google_s_code_decides_what_a_failure_is(code: str, message: str, status: int | None, row: str) -> None:
    assert classify(code, message, http_status=status).code == row


def test_only_what_can_not_surprise_the_payer_is_repeated_without_asking() -> None:
    repeated = {fault.code for fault in FAULTS.values() if fault.retry}
    assert repeated == {
        "network",
        "network-name",
        "network-timeout",
        "bad-answer",
        "unavailable",
        "rate-limit",
        "not-ready",
        "not-off",
        "changed-meanwhile",
        "operation-forgotten",
        "ledger",
    }
    assert all(fault.passes for fault in FAULTS.values() if fault.retry)


def test_a_stock_out_names_the_zone_and_passes_but_is_not_retried() -> None:
    fault = classify("ZONE_RESOURCE_POOL_EXHAUSTED", FULL)
    assert "zone us-central1-a" in fault.what
    assert (fault.passes, fault.retry) == (True, ())


def test_a_stock_out_says_where_google_has_some_and_promises_nothing() -> None:
    fault = classify("ZONE_RESOURCE_POOL_EXHAUSTED", FULL, elsewhere=["us-central1-b", "us-central1-c", "us-east1-d"])
    assert "some in us-central1-b, us-central1-c and us-east1-d just now." in fault.what
    assert "in such a zone and name that one in GCE_ZONE" in fault.todo
    assert not fault.retry
    assert "some in us-central1-f just" in classify("GPU_STOCKOUT", "", elsewhere=["us-central1-f", ""]).what


@pytest.mark.parametrize("zones", [[], [""], ["<b>here</b>"], ["us central"], ["x" * 500 + "!"], ["us-central1-a; rm"]])
def test_what_is_no_zone_is_not_told(zones: list[str]) -> None:
    assert classify("ZONE_RESOURCE_POOL_EXHAUSTED", FULL, elsewhere=zones) == classify(
        "ZONE_RESOURCE_POOL_EXHAUSTED", FULL
    )


def test_a_call_that_was_in_vain_is_not_said_to_be_repeated() -> None:
    fault = in_vain(named("rate-limit"), timedelta(minutes=10))
    assert "tried for 10 minutes and has given up" in fault.what
    assert "comfyweb" not in fault.todo
    assert (fault.passes, fault.retry) == (True, ())


def test_a_quota_names_the_limit_and_where_it_holds() -> None:
    regional = classify("QUOTA_EXCEEDED", "Quota 'NVIDIA_T4_GPUS' exceeded.  Limit: 1.0 in region us-central1.")
    assert regional.what == (
        "Your project's limit NVIDIA_T4_GPUS for region us-central1 is 1, and the machine needs more."
    )
    everywhere = classify("quotaExceeded", "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally.")
    assert "GPUS_ALL_REGIONS for all regions together is 0" in everywhere.what


def test_a_missing_permission_is_named_with_the_line_that_grants_it() -> None:
    fault = classify("forbidden", f"Required 'compute.instances.start' permission for {WHERE}")
    assert fault == lacking("compute.instances.start", "studio")
    assert "compute.instances.start" in fault.what
    assert "gcloud projects add-iam-policy-binding studio" in fault.todo
    assert lacking("iam.serviceAccounts.actAs").code == "act-as"


def test_a_refusal_without_a_permission_s_name_keeps_google_s_words() -> None:
    message = "The caller me@studio.iam.gserviceaccount.com may not use compute.googleapis.com here."
    assert message in classify("forbidden", message).what


def test_what_is_not_found_is_named() -> None:
    assert "no zone named mars" in classify("notFound", "The resource 'projects/p/zones/mars' was not found").what
    assert "models (disks)" in classify("notFound", "The resource 'projects/p/zones/z/disks/models' was not found").what


def test_an_unknown_failure_keeps_google_s_words_as_plain_text_without_addresses() -> None:
    fault = classify("NEW_THING", "It <b>broke</b>.\n See https://example.com/?token=s3cret now.", http_status=400)
    assert fault.what == "Google said: It broke . See now. (NEW_THING)"
    assert classify("", "", http_status=418).what == "Google said: HTTP 418"
    assert classify("", "").what == "Google gave no reason."


def test_states_that_the_loop_can_not_leave_have_words_too() -> None:
    assert {word: fault.code for word, fault in MACHINE_FAULTS.items()} == {
        "SUSPENDED": "suspended",
        "SUSPENDING": "suspending",
        "REPAIRING": "repairing",
        "DEPROVISIONING": "deprovisioning",
    }
    assert not MACHINE_FAULTS["SUSPENDED"].passes
    assert NOT_LOOKED_YET.passes
    assert named("not-found").todo


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_every_row_says_what_happened_and_what_to_do(fault: Fault) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", fault.code)
    assert not fault.title.endswith(".")
    assert len(fault.title) <= 50
    assert fault.what.endswith(".")
    assert fault.todo
    assert plain(fault.what + fault.todo, 1000) == fault.what + fault.todo


@given(st.text(), st.text(), st.none() | st.integers(min_value=0, max_value=999))
def test_any_words_at_all_become_a_fault_that_can_be_shown(code: str, message: str, status: int | None) -> None:
    fault = classify(code, message, http_status=status)
    shown = f"{fault.title}{fault.what}{fault.todo}"
    assert shown.isprintable()
    assert len(fault.what) < 600
    assert FAULTS[fault.code].retry == fault.retry
    shown.encode()


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_plain_text_is_one_bounded_line(text: str, longest: int) -> None:
    line = plain(text, longest)
    assert len(line) <= longest
    assert line.isprintable()
    assert line == line.strip()


@pytest.mark.parametrize("seed", ["<script", "<", "compute.", "'a/", "Quota 'A' exceeded. ", "https://"])
@pytest.mark.parametrize("code", ["forbidden", "notFound", "quotaExceeded", "NEW"])
def test_an_endless_message_is_cut_before_anything_is_made_of_it(code: str, seed: str) -> None:
    fault = classify(code, seed * 1_000_000)
    assert len(fault.what) < 600
