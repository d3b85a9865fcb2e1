"""Sweeps whose jobs outlive the launcher: job arrays, journal, snapshot, controller."""
