"""Who may do what: passwords, throttling, sessions, tokens to the host."""
