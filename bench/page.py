"""What a browser does with the page: how much it transfers, and how soon ComfyUI stands in its frame."""

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from playwright.async_api import Browser, async_playwright

from bench.rows import KB, Row, quantile
from bench.site import PASSWORD, Site, settled, site

MOST_KB, AIM_KB = 165, 150
CYCLES = 10
FRAME_SECONDS = 1.0
LOST_SECONDS = 30
LOADS = """
document.addEventListener("load", (event) => {
  if (event.target.tagName === "IFRAME" && event.target.src) benchLoaded(Date.now() / 1000);
}, true);
"""


@asynccontextmanager
async def browser() -> AsyncGenerator[Browser]:
    """Start Chromium. Raises LookupError when there is none."""
    path = shutil.which("chromium")
    if path is None:
        raise LookupError("no chromium on this machine")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        await started.close()


async def weight() -> list[Row]:
    """Load the login page into an empty browser and add up what came over the wire."""
    async with site() as where, browser() as chromium:
        page = await chromium.new_page()
        wire = await page.context.new_cdp_session(page)
        sizes: dict[str, float] = {}
        answers: dict[str, dict[str, Any]] = {}

        def loaded(event: dict[str, Any]) -> None:
            sizes[event["requestId"]] = event["encodedDataLength"]

        def answered(event: dict[str, Any]) -> None:
            answers[event["requestId"]] = event["response"]

        wire.on("Network.loadingFinished", loaded)
        wire.on("Network.responseReceived", answered)
        await wire.send("Network.enable")  # pyright: ignore[reportUnknownMemberType] - Playwright leaves it open
        await page.goto(f"{where.url}/login", wait_until="networkidle")
        await page.get_by_label("Password").wait_for()
        total = sum(sizes.values()) / KB
        hashed = [one for one in answers.values() if "/assets/" in one["url"]]
        forever = [one for one in hashed if "immutable" in _headers(one).get("cache-control", "")]
        squeezed = [one for one in answers.values() if _headers(one).get("content-encoding") == "br"]
    return [
        Row(
            what="Login page: transferred in all, headers too",
            figure=f"{total:.1f} KB in {len(sizes)} requests, {len(squeezed)} of them Brotli",
            bar=f"≤ {MOST_KB} KB, better {AIM_KB}",
            held=total <= MOST_KB,
            binding=True,
        ),
        Row(
            what="Hashed assets that are cached for ever",
            figure=f"{len(forever)} of {len(hashed)}",
            bar="all",
            held=len(forever) == len(hashed) > 0,
            binding=True,
        ),
    ]


def _headers(response: dict[str, Any]) -> dict[str, str]:
    return {name.lower(): value for name, value in response["headers"].items()}


async def frame() -> list[Row]:
    """Measure a machine that boots as `make run` shows it, and the fast one of the tests."""
    usual, hurried = await _frame_delays(fast=False), await _frame_delays(fast=True)
    p95 = quantile(usual, 0.95)
    return [
        Row(
            what="ComfyUI (stand-in) answers → its frame has loaded",
            figure=_seconds(usual),
            bar=f"p95 ≤ {FRAME_SECONDS} s",
            held=p95 <= FRAME_SECONDS,
        ),
        Row(
            what="The same with `--fast`, where ComfyUI answers before comfyweb's next look at Compute Engine, "
            "2 seconds after the last",
            figure=_seconds(hurried),
        ),
    ]


def _seconds(delays: list[float]) -> str:
    p50, p95 = quantile(delays, 0.5), quantile(delays, 0.95)
    return f"p50 {p50:.2f} s, p95 {p95:.2f} s, {len(delays)} starts"


async def _frame_delays(*, fast: bool) -> list[float]:
    """Start the machine again and again; time from its ComfyUI's first answer to the load of the page's frame.

    Both moments are Unix time on one machine.
    """
    delays: list[float] = []
    loads: asyncio.Queue[float] = asyncio.Queue()
    async with site(fast=fast) as where, browser() as chromium, where.client as client:
        page = await chromium.new_page()
        # Playwright leaves its type open.
        await page.expose_function("benchLoaded", loads.put_nowait)  # pyright: ignore[reportUnknownMemberType]
        await page.add_init_script(LOADS)
        await page.goto(f"{where.url}/login")
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url(f"{where.url}/")
        for _ in range(CYCLES):
            await settled(where, "off")
            while not loads.empty():
                loads.get_nowait()
            await client.post("/api/instance/start")
            ready = await _ready(where)
            async with asyncio.timeout(LOST_SECONDS):
                delays.append(await loads.get() - ready)
            await client.post("/api/instance/stop", json={"mode": "now"})
    return delays


async def _ready(where: Site) -> float:
    """Return the moment (Unix time) at which ComfyUI first says that it is ready."""
    async with httpx.AsyncClient(base_url=where.comfyui, timeout=5) as client, asyncio.timeout(60):
        while True:
            try:
                if (await client.get("/_host/health")).json()["phase"] == "ready":
                    return time.time()
            except (httpx.TransportError, ValueError):
                pass
            await asyncio.sleep(0.01)
