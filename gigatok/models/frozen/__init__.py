"""Networks that are never trained: teachers, LPIPS, and features of metrics."""
