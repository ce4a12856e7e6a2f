"""The gentle stop: no new prompt comes in, those that run and wait finish, then the machine powers off.

With nothing running or waiting that is at once. It has a deadline, so that a job which never ends can't hold the
machine, and it can be cancelled. Times are seconds of the clock that `idle` uses.
"""

from dataclasses import dataclass

RETRY_AFTER_SECONDS = 60
WORDS = (
    "This machine is about to stop: it finishes the prompts it has and takes no new ones. Press Start to keep it on."
)


def refuses(method: str, path: str) -> bool:
    """Whether a request would bring a new prompt, which a draining machine answers with 503."""
    return method == "POST" and path.removeprefix("/api") == "/prompt"


def refusal() -> dict[str, object]:
    """Return the body of that 503, in the shape in which ComfyUI's page shows errors."""
    error: dict[str, object] = {"type": "draining", "message": WORDS, "details": "", "extra_info": {}}
    return {"error": error, "node_errors": {}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """A drain under way, until it is over or `until` is reached."""

    until: float

    @classmethod
    def start(cls, seconds: float, *, now: float) -> "Drain":
        """Begin to drain. A later one replaces an earlier one, and so does its deadline."""
        return cls(until=now + seconds)

    def should_power_off(self, jobs: int | None, *, now: float) -> bool:
        """Whether the last job is over or the deadline is here; only the latter while ComfyUI is silent (None)."""
        return jobs == 0 or now >= self.until
