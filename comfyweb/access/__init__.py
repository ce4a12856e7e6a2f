"""Who may do what: passwords, sessions, throttling."""
