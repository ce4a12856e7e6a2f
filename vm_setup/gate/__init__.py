"""The gate: the process that nginx asks before it lets anybody through to ComfyUI."""
