"""The ledger's history: one file for each change of its tables."""
