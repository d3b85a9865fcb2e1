"""Watching: a live web page over `analysis`, and the same as one HTML file. No logic of its own.

Reads the tracking store through `analysis`; writes nothing but the file of `export`.
"""

from __future__ import annotations

import sys

if sys.argv[:1] == ["-m"]:  # only while `python -m` looks for the module to run
    # It looks into the working folder first, which may hold a gigatok.py of the user.
    sys.path.insert(0, __path__[0].rpartition("/")[0])
    from gigatok.startup import prepare

    prepare(__name__, sys.path[0])
