"""Measures what comfyweb promises: `make bench` writes docs/performance.md."""
