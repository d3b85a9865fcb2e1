"""Path of a stage's spool to MLflow, to which nothing else writes."""
