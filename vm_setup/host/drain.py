"""The gentle stop: no new prompt comes in, those that run and wait finish, then the machine powers off.

With nothing running or waiting that is at once. It has a deadline, so that a job which never ends can't hold the
machine, and it can be cancelled. At the end of the longest session the machine stays until the deadline although
nothing runs, because people were promised that time. Times are seconds of the clock that `idle` uses.
"""

from dataclasses import dataclass

from vm_setup.host.reading import mapping, number

RETRY_AFTER_SECONDS = 60
WORDS = (
    "This machine is about to stop: it finishes the prompts it has and takes no new ones. Press Start to keep it on."
)
SESSION_WORDS = (
    "The longest session is nearly over: this machine finishes the prompts it has and takes no new ones. "
    "Save your work; it can be started again when it is off."
)


def refuses(method: str, path: str) -> bool:
    """Whether a request would bring a new prompt, which a draining machine answers with 503."""
    return method == "POST" and path.removeprefix("/api") == "/prompt"


def refusal(*, stay: bool = False) -> dict[str, object]:
    """Return the body of that 503, in the shape in which ComfyUI's page shows errors."""
    message = SESSION_WORDS if stay else WORDS
    error: dict[str, object] = {"type": "draining", "message": message, "details": "", "extra_info": {}}
    return {"error": error, "node_errors": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """A drain under way, until it is over or `until` is reached; with `stay` only the latter ends it."""

    until: float
    stay: bool = False

    @classmethod
    def start(cls, seconds: float, *, now: float, stay: bool = False) -> "Drain":
        """Begin to drain. A later one replaces an earlier one, and so does its deadline."""
        return cls(until=now + seconds, stay=stay)

    def should_power_off(self, jobs: int | None, *, now: float) -> bool:
        """Whether the last job is over or the deadline is here; only the latter while ComfyUI is silent (None)."""
        return (jobs == 0 and not self.stay) or now >= self.until

    def to_json(self) -> dict[str, object]:
        """Return what has to be kept when the process restarts."""
        return {"until": self.until, "stay": self.stay}

    @classmethod
    def from_json(cls, saved: object) -> "Drain | None":
        """Read what `to_json` returned in this boot; None for whatever isn't that."""
        parts = mapping(saved) or {}
        until = number(parts.get("until"))
        return None if until is None else cls(until=until, stay=parts.get("stay") is True)
