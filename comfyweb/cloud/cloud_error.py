"""How a call to Compute Engine fails: with words for people, and other words for the log."""

from dataclasses import dataclass

from comfyweb.machine.model import Fault

# With these it is unknown whether Google carried the call out; with every other fault it surely did not.
_LOST = frozenset({"network", "network-timeout", "bad-answer", "unavailable"})


class CloudError(Exception):
    """A call to Compute Engine failed. `fault` is for people, `str(error)` for the log; neither holds a secret."""

    def __init__(self, fault: Fault, log: str = "") -> None:
        super().__init__(f"{fault.code}: {log or fault.what}")
        self.fault = fault

    @property
    def lost(self) -> bool:
        """Whether the answer was lost, so that the call may have been carried out all the same."""
        return self.fault.code in _LOST


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSeen:
    """What became of a call that Google took on. `fault` is set once it is done and has failed."""

    done: bool
    fault: Fault | None = None
