"""Linear probe on the tokenizer's features."""
