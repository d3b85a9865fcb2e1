"""Commands of `python -m gigatok`, one module each; they import nothing heavy until they run."""
