"""The loop, its ledger, and publishing what it found."""
