"""Keeping the machine on while something works that is no use of it."""

import threading
from collections.abc import Generator
from contextlib import contextmanager

from vm_setup.base import files
from vm_setup.base.places import HOLDS
from vm_setup.setup.system import LOG, System

# How much longer the machine stays on when we are killed; the keeper ends a hold of a day in any case.
SECONDS = 300.0
_EVERY_SECONDS = 60.0


@contextmanager
def held(system: System, name: str) -> Generator[None]:
    """Keep the machine on meanwhile, however long it takes: a hold that is written anew until the work is over."""
    path, over = system.paths.runtime / HOLDS / f"{name}.json", threading.Event()

    def write() -> None:
        try:
            files.write_object(path, {"until": system.now() + SECONDS}, durable=False)
        except OSError as error:
            LOG.warning("The machine may go off under its work (%s): %s.", name, error.strerror)

    def renew() -> None:
        while not over.wait(_EVERY_SECONDS):
            write()

    write()
    renewing = threading.Thread(target=renew, name=f"hold {name}", daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()
        files.remove(path)
