"""Training of a tokenizer: its batches, its losses, its adversarial game."""
