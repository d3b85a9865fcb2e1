"""The published numbers, with their sources."""
