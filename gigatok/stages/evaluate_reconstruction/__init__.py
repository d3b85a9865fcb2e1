"""Reconstruction of validation images, and its scores."""
