"""What the cloud in a box promises."""
