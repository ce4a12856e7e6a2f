"""The stand-in speaks the part of ComfyUI's API that programs and its page use."""

import struct
import zlib
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from tests.demo.standin_machine import machine, until, websocket

PROMPT: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "seconds": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "story/page"}},
}
LONG = {**PROMPT, "1": {**PROMPT["1"], "inputs": {"width": 8, "height": 8, "seconds": 600}}}


@pytest.fixture
async def browser() -> AsyncGenerator[httpx.AsyncClient]:
    async with machine() as made, made.entered() as entered:
        yield entered


async def queue(browser: httpx.AsyncClient, prompt: object = PROMPT, **more: object) -> str:
    answer = await browser.post("/prompt", json={"prompt": prompt, **more})
    assert answer.status_code == 200
    return answer.json()["prompt_id"]


async def history(browser: httpx.AsyncClient, prompt_id: str) -> Any:
    async def is_over() -> bool:
        return bool((await browser.get(f"/history/{prompt_id}")).json())

    await until(is_over)
    return (await browser.get(f"/history/{prompt_id}")).json()[prompt_id]


async def test_a_prompt_leaves_a_picture(browser: httpx.AsyncClient) -> None:
    entry = await history(browser, await queue(browser))
    assert entry["status"]["status_str"] == "success"
    image = entry["outputs"]["2"]["images"][0]
    assert (image["subfolder"], image["type"]) == ("story", "output")
    picture = (await browser.get("/api/view", params=image)).content
    width, height = struct.unpack(">II", picture[16:24])
    data = picture[picture.index(b"IDAT") + 4 : -16]
    assert picture.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(zlib.decompress(data)) == height * (1 + 3 * width)


async def test_the_same_words_leave_the_same_picture_and_others_another(browser: httpx.AsyncClient) -> None:
    pictures: list[bytes] = []
    for seed in (1, 1, 2):
        prompt = {**PROMPT, "1": {"class_type": "EmptyImage", "inputs": {**PROMPT["1"]["inputs"], "seed": seed}}}
        entry = await history(browser, await queue(browser, prompt))
        pictures.append((await browser.get("/view", params=entry["outputs"]["2"]["images"][0])).content)
    assert pictures[0] == pictures[1] != pictures[2]


async def test_a_websocket_hears_a_job_in_comfyuis_order(browser: httpx.AsyncClient) -> None:
    ear = await websocket(browser, "/ws?clientId=me")
    assert ear is not None
    await ear.listen_for("feature_flags")
    assert ear.heard[0]["data"] == {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "me"}
    await queue(browser, client_id="me")
    await ear.listen_for("execution_success")
    ear.heard.append({"type": "-"})

    async def is_over() -> bool:
        await ear.listen()
        return ear.heard[-1]["type"] == "executing" and ear.heard[-1]["data"]["node"] is None

    await until(is_over)
    ear.close()
    order = [kind for at, kind in enumerate(ear.kinds()) if kind != "-" and ear.kinds()[at - 1] != kind]
    assert order[:6] == [
        "status",
        "feature_flags",
        "status",
        "execution_start",
        "execution_cached",
        "progress_state",
    ]
    assert order[-4:] == ["executed", "execution_success", "status", "executing"]


async def test_other_clients_hear_of_the_queue_alone(browser: httpx.AsyncClient) -> None:
    ear = await websocket(browser, "/api/ws?clientId=other")
    assert ear is not None
    await history(browser, await queue(browser, client_id="me"))

    async def heard_three() -> bool:
        await ear.listen()
        return ear.kinds().count("status") >= 3

    await until(heard_three)
    ear.close()
    assert set(ear.kinds()) == {"status", "feature_flags"}


async def test_a_running_job_can_be_interrupted_and_waiting_ones_cleared(browser: httpx.AsyncClient) -> None:
    running, waiting, doomed = [await queue(browser, LONG) for _ in range(3)]

    async def runs() -> bool:
        return len((await browser.get("/queue")).json()["queue_running"]) == 1

    await until(runs)
    assert (await browser.get("/prompt")).json() == {"exec_info": {"queue_remaining": 3}}
    await browser.post("/queue", json={"delete": [doomed]})
    assert [row[1] for row in (await browser.get("/queue")).json()["queue_pending"]] == [waiting]
    await browser.post("/queue", json={"clear": True})
    await browser.post("/interrupt")
    entry = await history(browser, running)
    assert (entry["status"]["status_str"], entry["status"]["completed"]) == ("error", False)
    assert entry["status"]["messages"][-1][0] == "execution_interrupted"
    assert (await browser.get("/prompt")).json() == {"exec_info": {"queue_remaining": 0}}


async def test_jobs_say_when_the_last_one_ended(browser: httpx.AsyncClient) -> None:
    prompt_id = await queue(browser)
    await history(browser, prompt_id)
    listed = (await browser.get("/api/jobs", params={"limit": "1"})).json()
    job = listed["jobs"][0]
    assert (job["id"], job["status"], job["outputs_count"]) == (prompt_id, "completed", 1)
    assert job["execution_end_time"] >= job["execution_start_time"] >= job["create_time"]
    assert listed["pagination"] == {"offset": 0, "limit": 1, "total": 1, "has_more": False}
    assert (await browser.get(f"/api/jobs/{prompt_id}")).json()["outputs"]
    assert (await browser.get("/api/jobs/none")).status_code == 404


async def test_a_history_can_be_cleared(browser: httpx.AsyncClient) -> None:
    await history(browser, await queue(browser))
    await browser.post("/history", json={"clear": True})
    assert (await browser.get("/history")).json() == {}


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        (None, "no_prompt"),
        ([], "invalid_prompt"),
        ({}, "prompt_no_outputs"),
        ({"1": PROMPT["1"]}, "prompt_no_outputs"),
        ({"1": {"class_type": "Nobody"}}, "missing_node_type"),
        ({"1": 5}, "missing_node_type"),
        ({"2": {"class_type": "SaveImage", "inputs": {}}}, "prompt_outputs_failed_validation"),
        ({"2": PROMPT["2"]}, "prompt_outputs_failed_validation"),
        ({"1": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}, "dependency_cycle"),
    ],
)
async def test_a_wrong_prompt_is_refused_as_comfyui_does(browser: httpx.AsyncClient, prompt: object, kind: str) -> None:
    answer = await browser.post("/api/prompt", json={"prompt": prompt})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == kind


async def test_a_missing_input_is_named(browser: httpx.AsyncClient) -> None:
    prompt = {**PROMPT, "1": {"class_type": "EmptyImage", "inputs": {"width": "wide"}}}
    errors = (await browser.post("/prompt", json={"prompt": prompt})).json()["node_errors"]["1"]["errors"]
    assert [(error["type"], error["details"]) for error in errors] == [
        ("invalid_input_type", "width"),
        ("required_input_missing", "height"),
    ]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100000, b"\xff"])
async def test_garbage_instead_of_a_prompt_is_refused(browser: httpx.AsyncClient, body: bytes) -> None:
    assert (await browser.post("/prompt", content=body)).status_code == 400
    assert (await browser.post("/queue", content=body)).status_code == 200


async def test_an_upload_can_be_seen_again(browser: httpx.AsyncClient) -> None:
    answer = await browser.post("/upload/image", files={"image": ("cat.bin", b"meow")})
    assert answer.json() == {"name": "cat.bin", "subfolder": "", "type": "input"}
    seen = await browser.get("/view", params={"filename": "cat.bin", "type": "input"})
    assert seen.content == b"meow"
    assert (await browser.post("/upload/image", data={"image": "no file"})).status_code == 400


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "none.png", ""])
async def test_only_its_own_pictures_can_be_viewed(browser: httpx.AsyncClient, name: str) -> None:
    assert (await browser.get("/view", params={"filename": name})).status_code == 404


@pytest.mark.parametrize("path", ["/system_stats", "/object_info", "/features", "/settings", "/users", "/extensions"])
async def test_what_programs_ask_first_is_answered_at_both_addresses(browser: httpx.AsyncClient, path: str) -> None:
    plain, api = await browser.get(path), await browser.get("/api" + path)
    assert plain.status_code == api.status_code == 200
    assert plain.json() == api.json()


async def test_settings_are_kept(browser: httpx.AsyncClient) -> None:
    await browser.post("/settings", json={"Comfy.Theme": "dark"})
    assert (await browser.get("/api/settings")).json() == {"Comfy.Theme": "dark"}
