"""Launches: their record, the loop that runs a plan, and what the user sees of it."""
