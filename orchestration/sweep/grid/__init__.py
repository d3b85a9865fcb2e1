"""The grid of a sweep: axes and cells, and the trials that they become."""
