"""The command itself: what it is told, what it prints, and with which exit code it ends."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from comfyweb.doctor.checks import examine
from comfyweb.doctor.report import as_json, failed, text
from comfyweb.settings import dotenv_of_process


def parser() -> argparse.ArgumentParser:
    """Return what the command understands."""
    made = argparse.ArgumentParser(
        prog="python -m comfyweb doctor",
        description="Look at everything that comfyweb needs, with the settings that it would run with. Nothing is "
        "changed and no secret is printed. The exit code is 0 unless something has failed.",
    )
    made.add_argument("--json", action="store_true", help="print a JSON object, for programs")
    return made


def main(arguments: Sequence[str]) -> NoReturn:
    """Look, print, and end the process: 0 without failures, else 1."""
    wanted = parser().parse_args(arguments)
    findings = asyncio.run(examine(os.environ, dotenv_of_process()))
    sys.stdout.write(as_json(findings) if wanted.json else text(findings))
    sys.stdout.flush()
    # Not by sys.exit: that waits for the threads of Google's client, and one may hang in a dead network.
    os._exit(1 if failed(findings) else 0)
