"""With this folder on PYTHONPATH, Python imports this at start: workers know the stage."""

import sys

if any("forkserver" in word for word in sys.orig_argv):
    import idle_stage  # noqa: F401
