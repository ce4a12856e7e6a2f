"""What people see: shows snapshots, writes intents, knows no cloud."""
