"""YAML with positions: the one reader of every YAML file of a user."""
