"""How the built page is served."""

import base64
import hashlib
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comfyweb.ui.static import BuiltPage, NotBuiltError

SCRIPT = "let a = 1 < 2;\n"
PAGES = {
    "index.html": f"<script>{SCRIPT}</script><script src='/x.js'></script>",
    "404.html": '<script type="module" async="">lost()</script>',
    "login.html": "login",
    "login/index.html": "login",
    "__spa-fallback.html": "fallback",
}
OTHERS = {
    "assets/root-CyJSJKI9.js": "root",
    "assets/_login_._index-U-1c0IBl.js": "login script",
    "assets/plain.js": "not hashed",
    "style.css": "body {}",
    "root.js.map": "source map",
    "state.db": "state",
    ".env": "secret",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "client"
    for name, text in (PAGES | OTHERS).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "style.css.br").write_bytes(b"squeezed")
    (folder.parent / "outside.js").write_text("outside")
    (folder / "linked.js").symlink_to(folder.parent / "outside.js")
    return folder


@pytest.fixture(scope="module")
def page(built: Path) -> BuiltPage:
    return BuiltPage.read(built)


async def ask(page: BuiltPage, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=page)
    named = {"accept-encoding": "identity"} | {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=named) as client:
        return await client.request(method, path)


@pytest.mark.parametrize("path", ["/", "/?next=1", "/login", "/login/", "/style.css"])
async def test_what_was_built_is_there(page: BuiltPage, path: str) -> None:
    assert (await ask(page, path)).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/nowhere",
        "/root.js.map",
        "/state.db",
        "/.env",
        "/linked.js",
        "/404",
        "/404.html",
        "/__spa-fallback",
        "/../outside.js",
        "/assets/..%2f..%2foutside.js",
        "/assets/",
        "/ping",
        "/_event",
        "/login//",
    ],
)
async def test_nothing_else_exists_and_the_page_that_says_so_is_sent(page: BuiltPage, path: str) -> None:
    answer = await ask(page, path)
    assert (answer.status_code, answer.text) == (404, PAGES["404.html"])


@given(path=st.text(max_size=40), method=st.sampled_from(["GET", "HEAD", "POST", "PROPFIND"]))
async def test_any_path_gets_a_plain_answer(page: BuiltPage, path: str, method: str) -> None:
    sent: list[int] = []

    async def receive() -> dict[str, object]:
        raise AssertionError("the body is nobody's business")

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        sent.extend([message["status"]] if "status" in message else [])

    await page({"type": "http", "path": path, "method": method, "headers": []}, receive, send)
    assert sent in ([200], [404]) if method in {"GET", "HEAD"} else sent == [405]


@pytest.mark.parametrize("name", ["assets/root-CyJSJKI9.js", "assets/_login_._index-U-1c0IBl.js"])
async def test_a_name_that_holds_the_hash_of_its_content_is_kept_for_ever(page: BuiltPage, name: str) -> None:
    answer = await ask(page, f"/{name}")
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("path", ["/", "/login", "/style.css", "/assets/plain.js", "/nowhere"])
async def test_all_else_is_asked_about_each_time(page: BuiltPage, path: str) -> None:
    assert (await ask(page, path)).headers["cache-control"] == "no-cache"


async def test_who_has_it_already_gets_no_body(page: BuiltPage) -> None:
    tag = (await ask(page, "/style.css")).headers["etag"]
    for said in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await ask(page, "/style.css", if_none_match=said)
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
    assert (await ask(page, "/style.css", if_none_match='"other"')).status_code == 200


async def test_a_page_that_is_lost_is_not_unchanged(page: BuiltPage) -> None:
    tag = (await ask(page, "/nowhere")).headers["etag"]
    assert (await ask(page, "/nowhere", if_none_match=tag)).status_code == 404


@pytest.mark.parametrize("said", ["br", "gzip, br", "gzip;q=1.0, br;q=0.5", "BR", "br ; q=1"])
async def test_brotli_is_sent_to_who_takes_it(page: BuiltPage, said: str) -> None:
    plain, squeezed = await ask(page, "/style.css"), await ask(page, "/style.css", "HEAD", accept_encoding=said)
    assert squeezed.headers["content-encoding"] == "br"
    assert squeezed.headers["content-length"] == str(len(b"squeezed"))
    assert squeezed.headers["vary"] == plain.headers["vary"] == "accept-encoding"
    assert squeezed.headers["etag"] != plain.headers["etag"]


@pytest.mark.parametrize("said", ["", "gzip", "br;q=0", "br;q=0.0", "brotli", "xbr", "br;q=.."])
async def test_others_get_it_as_it_is(page: BuiltPage, said: str) -> None:
    answer = await ask(page, "/style.css", accept_encoding=said)
    assert answer.text == OTHERS["style.css"]


async def test_head_has_the_headers_of_get_and_no_body(page: BuiltPage) -> None:
    got, head = await ask(page, "/"), await ask(page, "/", "HEAD")
    assert (head.headers, head.content) == (got.headers, b"")


async def test_pages_are_only_read(page: BuiltPage) -> None:
    answer = await ask(page, "/", "POST")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_inline_scripts_are_known_by_their_hash(page: BuiltPage) -> None:
    def source(script: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"

    assert page.script_hashes == {source(SCRIPT), source("lost()")}


def test_without_a_build_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match="make build"):
        BuiltPage.read(tmp_path / "nowhere")
