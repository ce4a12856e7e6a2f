"""Several processes that serve one machine: PostgreSQL, Redis, and who runs the loop."""
