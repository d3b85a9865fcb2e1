"""Settings of a trial: its keys, the values that each may have, and the scales that give them."""
