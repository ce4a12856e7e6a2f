"""The real app as a process, from the built page, with no cloud behind it; and a browser."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.launching import REQUIRED, ROOT, Program, free_ports

Serve = Callable[..., AbstractContextManager[int]]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Serve with these settings more; gives the port."""
    if not (ROOT / ".web/build/client/index.html").exists():
        pytest.skip("the page is not built")

    @contextmanager
    def serving(**more: str) -> Generator[int]:
        port = free_ports()
        folder = tmp_path_factory.mktemp("app")
        environ = {
            "PORT": str(port),
            "DATABASE_URL": f"sqlite:///{folder / 'comfyweb.db'}",
            "COMPUTE_ENDPOINT": "http://127.0.0.1:1",
        }
        with Program("-m", "comfyweb", environ=REQUIRED | environ | more) as program:
            program.answers(f"http://localhost:{port}/healthz")
            yield port

    return serving


@pytest.fixture(scope="module")
def site(serve: Serve) -> Generator[str]:
    """Serve with the settings that a newcomer has; gives the address."""
    with serve() as port:
        yield f"http://localhost:{port}"
