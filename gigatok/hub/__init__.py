"""Trained tokenizers that leave home: provenance, model card, and transfer to a model hub."""
