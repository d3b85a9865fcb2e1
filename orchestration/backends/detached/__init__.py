"""Sweeps whose jobs outlive the launcher, on any `DetachedBackend`."""
