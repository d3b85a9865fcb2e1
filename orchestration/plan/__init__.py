"""A plan: the graph of stages of all trials, and the identity of each stage."""
