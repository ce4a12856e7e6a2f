"""The app is killed with SIGKILL at every line and every await, and must go on as if nothing had happened."""
