"""Optuna inside a sweep: trials are asked for, pruned and told."""
