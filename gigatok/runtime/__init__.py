"""The process that a stage runs in: its ranks, its tracker, its collectives."""
