"""What the set-up, the keeper and the gate share: paths, whole files, questions by HTTP, clocks, a look at ComfyUI."""
