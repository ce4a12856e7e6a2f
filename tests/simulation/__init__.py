"""comfyweb's loop in virtual time, against the emulator's model: years of machine time, replayed from a seed."""
