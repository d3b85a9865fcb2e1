"""When and where: sweeps, plans, runners and backends. Knows stages by name and config only."""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"]:  # only while `python -m` looks for the module to run
    # It looks into the working folder first, which may hold a gigatok.py of the user.
    sys.path.insert(0, __path__[0].rpartition("/")[0])
    from gigatok.startup import prepare

    prepare(__name__, sys.path[0])
