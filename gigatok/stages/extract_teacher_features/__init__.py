"""Features of a frozen teacher for all training images."""
