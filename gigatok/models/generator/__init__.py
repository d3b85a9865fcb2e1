"""The autoregressive generator of codes."""
