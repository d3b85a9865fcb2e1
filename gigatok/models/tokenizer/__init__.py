"""The tokenizer: CNN ends, transformers between grid and tokens, quantizer."""
