"""The keeper's word to the gate: /run/comfyweb/gate.json, readable by the gate's group alone."""

import grp
import json
import logging
from dataclasses import replace

from vm_setup.base import files
from vm_setup.base.paths import Paths
from vm_setup.base.places import USER
from vm_setup.host.gate import EVERY_SECONDS, FILE, Told

_LOG = logging.getLogger(__name__)


class Word:
    """What the gate was told last. Written when it changes, and every few seconds as a sign of life."""

    def __init__(self, paths: Paths) -> None:
        self._file = paths.runtime / FILE
        self._said: Told | None = None

    def tell(self, told: Told, *, now: float) -> None:
        """Write it, if it is news. What can't be written lets nobody in, and is tried again."""
        said = self._said
        if (
            said is not None
            and said.at is not None
            and now - said.at < EVERY_SECONDS
            and replace(told, at=said.at) == said
        ):
            return
        try:
            files.write(self._file, json.dumps(told.to_json()), mode=0o640, durable=False, group=_group())
        except OSError as error:
            _LOG.warning("The gate is told nothing (%s).", error.strerror)
            return
        self._said = told


def _group() -> int | None:
    """Return the number of the gate's group; None, so that nobody but root reads it, while there is no gate."""
    try:
        return grp.getgrnam(USER).gr_gid
    except KeyError:
        return None
