"""Features of the validation images, with which others are compared."""
