"""Costs of stages: predicted needs, measured times and memory, and micro-batches that fit."""
