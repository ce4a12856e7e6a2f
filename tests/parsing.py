"""Python 3.11 before 3.11.8 counts in one place for all threads how deep a tree is nested that `ast.parse` makes.

When garbage is collected meanwhile, whatever Python code that runs (Hypothesis times it) may let another thread parse,
or parse itself: then the first fails with "SystemError: AST constructor recursion depth mismatch"
(https://github.com/python/cpython/issues/106905). Hypothesis and every traceback parse.
"""

import ast
import functools
import gc
import sys
import threading
from typing import Any


def one_at_a_time() -> None:
    """Let nothing come in between while `ast.parse` makes a tree, where Python needs it."""
    if not (3, 11) <= sys.version_info < (3, 11, 8):
        return
    parse, turn = ast.parse, threading.RLock()

    @functools.wraps(parse)
    def undisturbed(*args: Any, **options: Any) -> ast.AST:
        with turn:
            collects = gc.isenabled()
            gc.disable()
            try:
                return parse(*args, **options)
            finally:
                if collects:
                    gc.enable()

    ast.parse = undisturbed
