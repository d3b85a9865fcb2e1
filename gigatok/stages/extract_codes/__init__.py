"""Codes of all images, on which generators are trained."""
