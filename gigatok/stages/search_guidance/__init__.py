"""Search for the guidance scale at which a generator scores best."""
