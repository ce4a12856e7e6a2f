"""The world outside: Compute Engine, and the host on the machine."""
