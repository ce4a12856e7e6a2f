"""Real machines: systemd-nspawn guests that the project's own emulator powers on and off."""
