"""A sweep: its grammar, its axes, and the trials it expands to."""
