"""Commands of `python -m gigatok`: each module parses and prints, and imports the work lazily."""
