"""Formulas of a sweep: their language, the names that they may use, and their check."""
