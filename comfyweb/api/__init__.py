"""REST: the same intents and snapshots for programs."""
