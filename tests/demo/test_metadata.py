"""The metadata server speaks the protocol that guests on Compute Engine rely on."""

import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.cloudbox import CloudBox

ATTRIBUTES = "instance/attributes/"


class Guest:
    """What asks the metadata server from inside the machine."""

    def __init__(self, box: CloudBox) -> None:
        self.box = box
        self._http = httpx.Client(base_url=f"{box.url}/computeMetadata/v1/", headers={"Metadata-Flavor": "Google"})

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self._http.get(path, headers=headers, timeout=20)

    def put(self, path: str, value: str) -> httpx.Response:
        return self._http.put(path, content=value)

    def delete(self, path: str) -> httpx.Response:
        return self._http.delete(path)


@pytest.fixture
def guest() -> Iterator[Guest]:
    with CloudBox(manual=True) as box:
        box.machine.metadata.update({"domain_name": "comfy.example.com", "enable-guest-attributes": "TRUE"})
        yield Guest(box)


def test_without_its_header_nothing_is_said(guest: Guest) -> None:
    for headers in ({}, {"Metadata-Flavor": "Other"}):
        for method in ("GET", "PUT"):
            url = f"{guest.box.url}/computeMetadata/v1/instance/guest-attributes/a/b"
            answer = httpx.request(method, url, headers=headers)
            assert answer.status_code == 403
            assert answer.headers["Metadata-Flavor"] == "Google"
    assert not guest.box.machine.guest_attributes


def test_a_page_elsewhere_that_has_our_address_by_another_name_is_refused(guest: Guest) -> None:
    assert guest.get(ATTRIBUTES, Host="evil.example.com").status_code == 403
    assert guest.get(ATTRIBUTES, Host="metadata.google.internal").status_code == 200
    assert guest.get(ATTRIBUTES, Host="169.254.169.254").status_code == 200


def test_a_forwarded_request_is_refused(guest: Guest) -> None:
    assert guest.get("instance/name", **{"X-Forwarded-For": "203.0.113.7"}).status_code == 403


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("instance/name", "comfyui-gpu"),
        ("instance/zone", "projects/464646464646/zones/us-central1-a"),
        ("instance/attributes/domain_name", "comfy.example.com"),
        ("instance/preempted", "FALSE"),
        ("instance/network-interfaces/0/ip", "10.128.0.2"),
        ("project/project-id", "demo-project"),
        ("project/numeric-project-id", "464646464646"),
    ],
)
def test_a_value_is_plain_text(guest: Guest, path: str, value: str) -> None:
    answer = guest.get(path)
    assert answer.text == value
    assert answer.headers["content-type"].startswith("application/text")
    assert answer.headers["Metadata-Flavor"] == "Google"
    assert answer.headers["ETag"]


def test_the_id_is_the_one_that_compute_engine_says(guest: Guest) -> None:
    assert guest.get("instance/id").text == str(guest.box.machine.id)


def test_a_directory_lists_its_names(guest: Guest) -> None:
    assert guest.get("").text == "instance/\nproject/\nuniverse/\n"
    assert guest.get(ATTRIBUTES).text == "domain_name\nenable-guest-attributes\n"
    assert "attributes/\n" in guest.get("instance/").text
    assert guest.get("../").text == "v1/\n"


def test_a_directory_without_its_slash_is_redirected_and_a_value_with_one_is_not_there(guest: Guest) -> None:
    moved = guest.get("instance/attributes?recursive=true")
    assert (moved.status_code, moved.headers["location"]) == (
        301,
        "/computeMetadata/v1/instance/attributes/?recursive=true",
    )
    assert guest.get("instance/name/").status_code == 404


@pytest.mark.parametrize(
    "path", ["instance/none", "instance/attributes/none", "none", "instance/name/x", "instance/disks/9/"]
)
def test_what_is_not_there_is_not_found(guest: Guest, path: str) -> None:
    assert guest.get(path).status_code == 404


def test_recursive_answers_json_in_camel_case_except_for_names_that_people_chose(guest: Guest) -> None:
    answer = guest.get("instance/?recursive=true")
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json()["cpuPlatform"]
    assert answer.json()["networkInterfaces"][0]["accessConfigs"][0]["type"] == "ONE_TO_ONE_NAT"
    assert answer.json()["attributes"] == guest.get(f"{ATTRIBUTES}?recursive=true").json()
    assert answer.json()["attributes"]["enable-guest-attributes"] == "TRUE"


def test_alt_chooses_the_form(guest: Guest) -> None:
    assert guest.get("instance/name?alt=json").json() == "comfyui-gpu"
    assert guest.get(f"{ATTRIBUTES}?alt=json").json() == ["domain_name", "enable-guest-attributes"]
    text = guest.get(f"{ATTRIBUTES}?recursive=true&alt=text").text
    assert text == "domain_name comfy.example.com\nenable-guest-attributes TRUE\n"


def test_an_etag_changes_with_what_it_stands_for_and_only_then(guest: Guest) -> None:
    before = guest.get(f"{ATTRIBUTES}?recursive=true").headers["ETag"], guest.get("instance/name").headers["ETag"]
    guest.box.machine.metadata["comfyweb-command"] = "[]"
    after = guest.get(f"{ATTRIBUTES}?recursive=true").headers["ETag"], guest.get("instance/name").headers["ETag"]
    assert before[0] != after[0]
    assert before[1] == after[1]


def waiting(guest: Guest, path: str) -> tuple[threading.Thread, list[httpx.Response]]:
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(guest.get(path)))
    thread.start()
    return thread, answers


def test_waiting_for_change_wakes_when_something_changes(guest: Guest) -> None:
    etag = guest.get(f"{ATTRIBUTES}?recursive=true").headers["ETag"]
    query = f"{ATTRIBUTES}?recursive=true&wait_for_change=true&timeout_sec=15&last_etag={etag}"
    thread, answers = waiting(guest, query)
    guest.box.machine.metadata["comfyweb-command"] = "[]"
    thread.join(15)
    assert answers[0].json()["comfyweb-command"] == "[]"
    assert answers[0].headers["ETag"] != etag


def test_waiting_with_an_old_etag_answers_at_once_so_that_no_change_is_missed(guest: Guest) -> None:
    answer = guest.get(f"{ATTRIBUTES}?recursive=true&wait_for_change=true&last_etag=0")
    assert answer.json()["domain_name"] == "comfy.example.com"


def test_waiting_ends_at_its_timeout_with_what_there_is(guest: Guest) -> None:
    assert guest.get(f"{ATTRIBUTES}domain_name?wait_for_change=true&timeout_sec=0").text == "comfy.example.com"


class Watcher:
    """Middleware that tells when a waiting call has come, and when it is over."""

    def __init__(self) -> None:
        self.came, self.over = threading.Event(), threading.Event()

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            waits = b"wait_for_change" in scope.get("query_string", b"")
            if waits:
                self.came.set()
            await app(scope, receive, send)
            if waits:
                self.over.set()

        return watched


def test_waiting_ends_when_the_emulator_does() -> None:
    watcher = Watcher()
    with CloudBox(manual=True, middleware=watcher.wrap) as box:
        thread, answers = waiting(Guest(box), "instance/name?wait_for_change=true&timeout_sec=15")
        assert watcher.came.wait(10)
    thread.join(15)
    assert answers[0].text == "comfyui-gpu"


def test_nobody_waits_for_a_guest_that_has_gone() -> None:
    watcher = Watcher()
    with CloudBox(manual=True, middleware=watcher.wrap) as box:
        request = "GET /computeMetadata/v1/instance/name?wait_for_change=true HTTP/1.1"
        with socket.create_connection(("127.0.0.1", box.port)) as guest:
            guest.sendall(f"{request}\r\nHost: localhost\r\nMetadata-Flavor: Google\r\n\r\n".encode())
            assert watcher.came.wait(10)
            assert not watcher.over.is_set()
        assert watcher.over.wait(10)


def test_waiting_for_a_value_that_goes_away_ends_in_not_found(guest: Guest) -> None:
    etag = guest.get(f"{ATTRIBUTES}domain_name").headers["ETag"]
    thread, answers = waiting(guest, f"{ATTRIBUTES}domain_name?wait_for_change=true&timeout_sec=15&last_etag={etag}")
    del guest.box.machine.metadata["domain_name"]
    thread.join(15)
    assert answers[0].status_code == 404


@pytest.mark.parametrize("seconds", ["x", "-1", "nan"])
def test_a_timeout_that_cannot_be_is_refused(guest: Guest, seconds: str) -> None:
    assert guest.get(f"{ATTRIBUTES}?wait_for_change=true&timeout_sec={seconds}").status_code == 400


def test_guest_attributes_are_written_read_and_deleted(guest: Guest) -> None:
    path = "instance/guest-attributes/comfyweb/phase"
    assert guest.put(path, '{"phase": "warming"}').status_code == 200
    assert guest.box.machine.guest_attributes == {"comfyweb": {"phase": '{"phase": "warming"}'}}
    assert guest.get(path).text == '{"phase": "warming"}'
    assert guest.get("instance/guest-attributes/?recursive=true").json() == {
        "comfyweb": {"phase": '{"phase": "warming"}'}
    }
    assert guest.delete(path).status_code == 200
    assert guest.delete(path).status_code == 404
    assert guest.get(path).status_code == 404


def test_guest_attributes_that_are_not_allowed_are_refused(guest: Guest) -> None:
    del guest.box.machine.metadata["enable-guest-attributes"]
    assert guest.put("instance/guest-attributes/comfyweb/phase", "x").status_code == 403
    assert not guest.box.machine.guest_attributes


@pytest.mark.parametrize("path", ["a%20b/c", "a/b%20c", "a/" + "x" * 300])
def test_guest_attributes_have_plain_names(guest: Guest, path: str) -> None:
    assert guest.put(f"instance/guest-attributes/{path}", "x").status_code == 400


def test_a_guest_attribute_has_a_limit(guest: Guest) -> None:
    assert guest.put("instance/guest-attributes/a/b", "x" * (256 * 1024 + 1)).status_code == 413


def test_only_guest_attributes_can_be_written(guest: Guest) -> None:
    assert guest.put("instance/attributes/domain_name", "evil.example.com").status_code in (404, 405)
    assert guest.box.machine.metadata["domain_name"] == "comfy.example.com"


def test_it_answers_for_the_machine_that_runs(guest: Guest) -> None:
    guest.box.control("machine", {"action": "create", "zone": "us-central1-b"})
    assert guest.get("instance/zone").text.endswith("/us-central1-a")
    guest.box.control("machine", {"action": "start", "zone": "us-central1-b"})
    guest.box.advance(30)
    assert guest.get("instance/zone").text.endswith("/us-central1-b")


def test_a_machine_that_is_taken_back_is_told(guest: Guest) -> None:
    guest.box.control("machine", {"action": "start"})
    guest.box.advance(30)
    guest.box.control("preempt")
    assert guest.get("instance/preempted").text == "TRUE"


def test_without_any_machine_nothing_is_found(guest: Guest) -> None:
    guest.box.control("machine", {"action": "delete"})
    guest.box.advance(30)
    assert guest.get("instance/name").status_code == 404
