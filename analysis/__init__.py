"""What was learned: the tracking store as tables, figures and sentences. Reads, never trains.

    import analysis

    runs = analysis.load_runs("decoder_scaling")           # polars: one row per trial
    analysis.units(runs)["psnr"]                           # dB
    analysis.to_pandas(runs)
    for answer in analysis.comparisons(runs):              # paired on shared seeds
        print(answer.sentence, answer.test)
    fit = analysis.fit_power_law(sizes, losses)            # intervals, largest size held out
    print(fit.sentence)
    analysis.plot_fit(axes, fit, sizes, losses)            # takes an Axes, returns it
    families = analysis.fronts(runs, "psnr")               # rate-distortion plane
    analysis.plot_rate_distortion(axes, families, "psnr")
    analysis.find_confounds(runs)                          # sentences

Names are imported on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if sys.argv[:1] == ["-m"]:  # only while `python -m` looks for the module to run
    # It looks into the working folder first, which may hold a gigatok.py of the user.
    sys.path.insert(0, __path__[0].rpartition("/")[0])
    from gigatok.startup import prepare

    prepare(__name__, sys.path[0])

if TYPE_CHECKING:
    from analysis.claims.confounds import find_confounds
    from analysis.claims.findings import comparisons
    from analysis.figures.export import export_figure
    from analysis.figures.fit_plot import plot_fit
    from analysis.figures.plots import draw_figure
    from analysis.figures.sweeps import figure_info
    from analysis.report.report import write_report
    from analysis.statistics.complexity import complexity_relations
    from analysis.statistics.estimates import paired_test, spearman
    from analysis.statistics.fits import Fit, fit_metric, fit_power_law
    from analysis.statistics.rate_distortion import fronts, gaps, plot_rate_distortion
    from analysis.store.runs import load_curves, load_runs, missing, to_pandas, units, write_table
    from analysis.store.stores import RequestError
    from analysis.tables.results import result_table

_HOME = {
    "Fit": "statistics.fits",
    "RequestError": "store.stores",
    "comparisons": "claims.findings",
    "complexity_relations": "statistics.complexity",
    "draw_figure": "figures.plots",
    "export_figure": "figures.export",
    "figure_info": "figures.sweeps",
    "find_confounds": "claims.confounds",
    "fit_metric": "statistics.fits",
    "fit_power_law": "statistics.fits",
    "fronts": "statistics.rate_distortion",
    "gaps": "statistics.rate_distortion",
    "load_curves": "store.runs",
    "load_runs": "store.runs",
    "missing": "store.runs",
    "paired_test": "statistics.estimates",
    "plot_fit": "figures.fit_plot",
    "plot_rate_distortion": "statistics.rate_distortion",
    "result_table": "tables.results",
    "spearman": "statistics.estimates",
    "to_pandas": "store.runs",
    "units": "store.runs",
    "write_report": "report.report",
    "write_table": "store.runs",
}

__all__ = [
    "Fit",
    "RequestError",
    "comparisons",
    "complexity_relations",
    "draw_figure",
    "export_figure",
    "figure_info",
    "find_confounds",
    "fit_metric",
    "fit_power_law",
    "fronts",
    "gaps",
    "load_curves",
    "load_runs",
    "missing",
    "paired_test",
    "plot_fit",
    "plot_rate_distortion",
    "result_table",
    "spearman",
    "to_pandas",
    "units",
    "write_report",
    "write_table",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    home = import_module(f"analysis.{_HOME[name]}")
    return getattr(home, name)
