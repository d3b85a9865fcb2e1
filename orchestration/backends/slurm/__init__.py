"""Backend for SLURM: jobs, arrays and their supervisor."""
