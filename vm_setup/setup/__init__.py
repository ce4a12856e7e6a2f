"""Reconcile: what brings a machine from whatever it is to what it should be, changing only what differs."""
