"""The figures: what each of them shows, from published numbers and from runs."""
