"""From the spool of a stage to MLflow: the only writer to it."""
