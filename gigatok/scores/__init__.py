"""Scores of reconstructions and samples, and what they need: features, statistics, sampling."""
