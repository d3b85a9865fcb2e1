"""Claims about settings of a study: what they say, how they are tested, what decides them.

Reads numbers only: no tracking store, no sweep file. Imports numpy and scipy.special.
"""
