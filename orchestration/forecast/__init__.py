"""Predictions of a whole study: time, memory, disk, and what a budget allows."""
