"""Adoption of a tokenizer from a file, in place of training one."""
