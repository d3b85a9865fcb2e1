"""Tables of trials and of published numbers, and their text formats."""
