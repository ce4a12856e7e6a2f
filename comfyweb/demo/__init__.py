"""A cloud in a box: Compute Engine, its metadata server and a stand-in ComfyUI, on loopback."""
