"""A runs directory: stage folders, their records, leases, and who may publish."""
