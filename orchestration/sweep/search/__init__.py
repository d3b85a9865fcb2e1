"""The `search` block of a sweep: it asks for trials one by one."""
