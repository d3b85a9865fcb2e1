"""Training of the autoregressive probe."""
