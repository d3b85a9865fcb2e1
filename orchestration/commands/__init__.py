"""`python -m orchestration COMMAND`: a file per command, and what they show."""
