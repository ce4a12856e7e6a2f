"""The resident daemon: decides when the machine is idle, drains it, tells how it is, and takes commands."""
