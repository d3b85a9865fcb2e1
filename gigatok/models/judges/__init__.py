"""Discriminators of the adversarial loss, and what they see of an image."""
