"""Commands that look after the machine, its data and what sweeps left behind."""
