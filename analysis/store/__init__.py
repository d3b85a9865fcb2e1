"""Reading the tracking store: databases and servers as one table of trials."""
