"""When ComfyUI's process hangs and has to be restarted: it runs, and has not answered for long, and does no work.

Its prompts run in a thread of their own, so that it answers while it computes; a node that keeps it from answering
shows as work of the graphics card. A restart loses what was in the queue. So a queue that had jobs is given longer,
for ever where nobody can see whether the card works: the idle clock bounds that. Times are seconds of its clock.
"""

from dataclasses import dataclass, replace

from vm_setup.host.idle import LONGEST_SILENCE_SECONDS

SILENT_SECONDS = 180.0
SILENT_WITH_JOBS_SECONDS = 900.0
STARTING_SECONDS = 1800.0
AGAIN_SECONDS = 600.0
WORKING_PERCENT = 5.0
WORKED_LATELY_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """What is known of a process that should answer. Each method returns what is known afterwards.

    `process` is its id, as far as it was ever known; `answered` whether it ever did; `silent_since` since when it
    hasn't; `worked` when the graphics card was last seen at work; `restarted` when we last restarted it.
    """

    process: int | None = None
    answered: bool = False
    silent_since: float | None = None
    worked: float | None = None
    restarted: float | None = None

    def see(
        self, process: int | None, *, answers: bool, card_percent: float | None, now: float, gone: bool = False
    ) -> "Hang":
        """Look at it once more. `card_percent` is how busy the graphics card is; None when that can't be read.

        `process`: None while it doesn't run, or nobody can say. systemd is asked for it less often than it is itself,
        so that it may have answered before. `gone`: nobody listens where it should.
        """
        known = replace(self, process=process or self.process)
        if None not in {process, self.process} and process != self.process:
            known = replace(known, answered=False, silent_since=None)
        worked = now if card_percent is not None and card_percent >= WORKING_PERCENT else known.worked
        if answers or process is None:
            answered = answers or (known.answered and not gone)
            return replace(known, answered=answered, silent_since=None, worked=worked)
        silent_since = now if known.silent_since is None else known.silent_since
        return replace(known, silent_since=silent_since, worked=worked)

    def should_restart(self, *, jobs: bool, card_seen: bool, now: float) -> bool:
        """Whether to restart it. `jobs`: its queue had some when last seen; `card_seen`: the card can be read."""
        if self.silent_since is None or (self.restarted is not None and now - self.restarted < AGAIN_SECONDS):
            return False
        if jobs and not card_seen:
            return False
        patience = SILENT_WITH_JOBS_SECONDS if jobs else SILENT_SECONDS if self.answered else STARTING_SECONDS
        still_since = self.silent_since if self.worked is None else max(self.silent_since, self.worked)
        return now - still_since >= patience

    def seems_at_work(self, *, now: float) -> bool:
        """Whether it is silent, for less than an hour, while the graphics card works: somebody's job, most likely."""
        if self.silent_since is None or self.worked is None or self.process is None:
            return False
        since_then = self.silent_since <= self.worked and now - self.worked < WORKED_LATELY_SECONDS
        return since_then and now - self.silent_since < LONGEST_SILENCE_SECONDS

    def restart(self, *, now: float) -> "Hang":
        """Remember that it is restarted now."""
        return replace(self, restarted=now, answered=False, silent_since=None)
