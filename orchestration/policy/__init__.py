"""Resources and retries by kind of stage: profiles and faults."""
