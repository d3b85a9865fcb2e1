"""Watching: a live web page over `analysis`, and the same as one HTML file. No logic of its own.

Reads the tracking store through `analysis`; writes nothing but the file of `export`.
"""
