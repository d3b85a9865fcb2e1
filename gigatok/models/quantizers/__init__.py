"""Quantizers: latents to codes and back, each beside the others behind one interface."""
