"""Backend for Ray: its tasks, its head and the supervisor that it runs."""
