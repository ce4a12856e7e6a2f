"""Who may come, when that is changed while the machine runs: in force at once, by firewall and nginx.

The keeper, which follows the metadata, has this done by `comfyweb-visitors.service`, in a sandbox of its own. Whatever
else is asked for waits for the next start.
"""

from collections.abc import Callable

from vm_setup.host import allowed
from vm_setup.setup import adoption, firewall, metadata, web
from vm_setup.setup.metadata import Attributes, Silent, Wanted
from vm_setup.setup.steps import FIREWALL, Steps
from vm_setup.setup.system import LOG, System, Trouble

_OF_THE_KEYS = tuple(f"{key}: " for key in allowed.KEYS)
_TOPICS = (*_OF_THE_KEYS, *firewall.TOPICS, "nginx ")
_PATIENCE_SECONDS = 60.0


def follow(system: System, read: Callable[[], Attributes]) -> int:
    """Put in force who may come now. Returns the exit code: 1 when it could not be done, and then the page is told.

    A machine that was never set up is left to its first start.
    """
    known = metadata.last_good(system.paths)
    if known is None or adoption.Manifest(system).undone.exists():
        return 0
    try:
        told = metadata.with_patience(read, seconds=_PATIENCE_SECONDS, now=system.now, sleep=system.sleep)
    except Silent as silent:
        LOG.warning("Who may come stays as it was: %s.", silent)
        return 1
    others = {key: value for key, value in known.items() if key not in allowed.KEYS}
    attributes = others | {key: told[key] for key in allowed.KEYS if key in told}
    wanted = Wanted.read(attributes)
    steps = Steps(paths=system.paths, now=system.now)
    for topic in _TOPICS:
        steps.retract(topic)
    for words in wanted.wrong:
        if words.startswith(_OF_THE_KEYS):
            steps.warn(words)
    try:
        firewall.ensure(system, steps, wanted)
        web.apply(system)
    except Trouble as trouble:
        steps.failed(FIREWALL, str(trouble))
        return 1
    finally:
        metadata.keep(system.paths, attributes)
    if steps.row(FIREWALL):
        steps.done(FIREWALL)
    LOG.info("Who may come: %s.", " ".join(map(str, wanted.allowed.networks)) or "as the start-up script says")
    return 0


def main(_version: str) -> int:
    """`comfyweb.pyz visitors`."""
    return follow(System(), metadata.fetch)
