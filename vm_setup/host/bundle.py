"""How a start-up script says that it is ours, and which version it is; the app and the machine both look."""

import re

MARK = "# comfyweb host bundle"
_VERSION = re.compile(rf"^{MARK} ([\x21-\x7e]{{1,64}})$")
_FIRST_LINES = 3


def version_of(script: str) -> str:
    """Return the version that a start-up script of ours carries in its first lines; nothing for another's."""
    heads = script[:2000].splitlines()[:_FIRST_LINES]
    return next((found[1] for line in heads if (found := _VERSION.match(line))), "")
