"""Adoption of a generator from a file, in place of training one."""
