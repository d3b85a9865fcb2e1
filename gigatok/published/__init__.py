"""Published checkpoints: what they are, how they fit our modules, what they cost."""
