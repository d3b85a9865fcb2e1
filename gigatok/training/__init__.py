"""Training of tokenizers and generators: losses, trainer, checkpoints."""
