"""Files that hold many images or tensors, read and written piece by piece."""
