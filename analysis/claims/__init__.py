"""Sentences that claim no more than the trials show."""
