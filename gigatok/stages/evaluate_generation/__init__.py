"""Sampling from the generator, and scores of the samples."""
