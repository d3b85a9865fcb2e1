"""The order of stages and their states while a plan runs."""
