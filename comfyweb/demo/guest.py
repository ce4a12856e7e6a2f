"""What runs inside the emulated machine, seen from outside: it gets electricity, loses it, and can be idle."""

from typing import Protocol


class Guest(Protocol):
    """The machine's inside. It switches its machine off by calling the `poweroff` that it was made with."""

    async def power_on(self, boot_id: str) -> None:
        """Boot; `boot_id` names this boot and no other. Returns once the boot has begun."""
        ...

    async def power_off(self) -> None:
        """Lose electricity: be silent when this returns. May come at any time, and more than once."""
        ...

    def idle_in(self, seconds: float) -> None:
        """Pretend that nobody has used it for so long that the idle stop is `seconds` away."""
        ...


class NoGuest:
    """An empty machine: Compute Engine alone."""

    async def power_on(self, boot_id: str) -> None:
        """Nothing boots."""

    async def power_off(self) -> None:
        """Nothing stops."""

    def idle_in(self, seconds: float) -> None:
        """Nobody counts."""
