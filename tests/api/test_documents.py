"""The documents can't go stale, and the API keeps what they promise."""

from pathlib import Path

import httpx

from comfyweb.api.app import create_api
from comfyweb.api.openapi import SNAPSHOT_WORDS
from comfyweb.api.reference import reference
from tests.api.conftest import UNSEEN, World

REST = Path(__file__).parents[2] / "docs" / "rest.md"


def test_the_reference_is_what_the_api_says_of_itself() -> None:
    assert REST.read_text("utf-8") == reference(), "python -m comfyweb.api.reference > docs/rest.md"


def test_every_member_of_the_snapshot_is_documented_and_no_other() -> None:
    assert list(SNAPSHOT_WORDS) == list(UNSEEN.body)


def test_every_call_is_described() -> None:
    for path, item in create_api().openapi()["paths"].items():
        for method, operation in item.items():
            assert operation["description"], (method, path)
            assert operation["summary"], (method, path)


async def test_the_page_of_the_api_needs_nobody_elses_server(world: World, stranger: httpx.AsyncClient) -> None:
    page = await stranger.get("/api/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "//" not in page.text.replace("<!doctype", "")
    assert "<script>" not in page.text
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js", "favicon.png"):
        asset = await stranger.get(f"/api/docs/{name}")
        assert asset.status_code == 200
        assert "max-age" in asset.headers["cache-control"]
    assert (await stranger.get("/api/openapi.json")).json()["openapi"].startswith("3.1")
