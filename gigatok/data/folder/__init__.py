"""Images of a user: class folders, a flat folder, tar shards, parquet or `.npz`."""
