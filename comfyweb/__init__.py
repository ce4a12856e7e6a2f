"""The page from which a ComfyUI machine on Compute Engine is started, used and stopped."""
