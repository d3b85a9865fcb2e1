"""Extra losses of tokenizers, chosen by name in `tokenizer.extra_losses`."""
