"""PURE: what a machine is and what to do next."""
