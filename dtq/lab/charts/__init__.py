"""Charts, each drawn from a frame. None of them asks Redis."""
