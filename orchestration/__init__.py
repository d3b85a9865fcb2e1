"""Sweeps, plans, backends and runs. `Study` is all of it in Python.

from orchestration import Study

study = Study("decoder_scaling", scale="smoke")
study.plan()
study.run(jobs=2)
study.table()
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if sys.argv[:1] == ["-m"]:  # only while `python -m` looks for the module to run
    # It looks into the working folder first, which may hold a gigatok.py of the user.
    sys.path.insert(0, __path__[0].rpartition("/")[0])
    from gigatok.startup import prepare

    prepare(__name__, sys.path[0])

if TYPE_CHECKING:
    from orchestration.study.study import Study

__all__ = ["Study"]


def __getattr__(name: str) -> Any:
    """Import `Study` when it is asked for: workers and commands import this package first."""
    if name == "Study":
        from orchestration.study.study import Study

        return Study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
