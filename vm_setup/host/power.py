"""How a machine that has decided to power off gets there, even when something on it won't let go.

`systemctl poweroff` waits for every service, and one without a limit for its stop (Google's own shutdown scripts have
none) keeps the machine on, and billed. Only `poweroff -ff`, which asks nobody, was seen to end that.
"""

from collections.abc import Sequence

POLITE = "polite"
FORCED = "forced"
FORCED_AFTER_SECONDS = 120.0
FORCED_EVERY_SECONDS = 60.0
FORCING_UNIT = "comfyweb-poweroff.service"

Argv = Sequence[str]

# The unit is started first: it survives the shutdown, of which the keeper itself is an early victim.
COMMANDS: dict[str, Sequence[Argv]] = {
    POLITE: (("systemctl", "start", "--no-block", FORCING_UNIT), ("systemctl", "--no-block", "poweroff")),
    FORCED: (("sync",), ("systemctl", "poweroff", "-ff")),
}


def due(*, since: float, last: float | None, now: float) -> str | None:
    """Return what is due `since` the decision, when something was last done at `last`; None while nothing is."""
    if last is None:
        return POLITE
    if now - since < FORCED_AFTER_SECONDS or now - last < FORCED_EVERY_SECONDS:
        return None
    return FORCED
