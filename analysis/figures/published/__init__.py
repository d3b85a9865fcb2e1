"""Figures of published numbers: the paper's and those of its peers."""
