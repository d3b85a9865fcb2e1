"""What was learned: the tracking store as tables, figures and sentences. Reads, never trains.

    from analysis import comparisons, load_runs, result_table

Names are imported on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.export import export_figure
    from analysis.figures import figure_info
    from analysis.findings import comparisons
    from analysis.plots import draw_figure
    from analysis.runs import load_curves, load_runs, missing
    from analysis.stores import RequestError
    from analysis.tables import result_table

_HOME = {
    "RequestError": "stores",
    "comparisons": "findings",
    "draw_figure": "plots",
    "export_figure": "export",
    "figure_info": "figures",
    "load_curves": "runs",
    "load_runs": "runs",
    "missing": "runs",
    "result_table": "tables",
}

__all__ = [
    "RequestError",
    "comparisons",
    "draw_figure",
    "export_figure",
    "figure_info",
    "load_curves",
    "load_runs",
    "missing",
    "result_table",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    home = import_module(f"analysis.{_HOME[name]}")
    return getattr(home, name)
