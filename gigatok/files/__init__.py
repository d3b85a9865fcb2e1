"""Files that survive: durable writes, downloads with hashes, weights read without running code."""
