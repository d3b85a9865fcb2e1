"""Linear probe on the generator's features."""
