"""What many threads parse while garbage is collected is parsed."""

import ast
import gc
import inspect
import sys
import threading
from collections.abc import Iterator

import pytest

SOURCE = inspect.getsource(ast)


@pytest.fixture
def constant_collection() -> Iterator[None]:
    before, switching = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(50)
    sys.setswitchinterval(1e-6)
    gc.callbacks.append(_in_python)
    yield
    gc.callbacks.remove(_in_python)
    sys.setswitchinterval(switching)
    gc.set_threshold(*before)


def _in_python(phase: str, info: dict[str, int]) -> None:
    for _ in range(3):
        pass


def test_threads_that_parse_at_once_get_their_trees(constant_collection: None) -> None:
    failed: list[SystemError] = []

    def parse(deep: int) -> None:
        if deep:
            parse(deep - 1)
            return
        for _ in range(8):
            try:
                ast.parse(SOURCE)
            except SystemError as error:
                failed.append(error)

    threads = [threading.Thread(target=parse, args=(13 * number,)) for number in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failed == []
