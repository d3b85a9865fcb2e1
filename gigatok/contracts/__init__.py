"""Contracts: checks that every registered thing passes, built in or from a plug-in."""
