"""Study of a sweep in Python: plan, run, look at, steer. Commands print what these return."""
