"""The host's pure rules: idle, drain, cookies, tickets, messages. Standard library only."""
