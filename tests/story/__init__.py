"""The whole thing as its user meets it."""
