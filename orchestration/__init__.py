"""When and where: sweeps, plans, runners and backends. Knows stages by name and config only."""
