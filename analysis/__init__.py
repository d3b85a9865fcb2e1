"""Results of studies: the tracking store as tables, figures and sentences. Reads, never trains.

    import analysis

    runs = analysis.load("decoder_scaling")                # polars: one row per trial
    analysis.units(runs)["psnr"]                           # dB
    analysis.table(runs)                                   # a row per setting, seeds merged
    analysis.save(analysis.figure(runs), "figures")        # the figure of the sweep
    analysis.save(analysis.figure("cure"), "figures")      # the paper's Figure 7
    analysis.published(metric="gfid")                      # published numbers, with sources
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
    from analysis.api import draw, figure, load, published, save, table
    from analysis.claims.confounds import find_confounds
    from analysis.claims.findings import comparisons
    from analysis.figures.fit_plot import plot_fit
    from analysis.figures.rate_distortion import plot_rate_distortion
    from analysis.report.report import write_report
    from analysis.statistics.complexity import complexity_relations
    from analysis.statistics.estimates import paired_test, spearman
    from analysis.statistics.fits import LawFit, fit_metric, fit_power_law
    from analysis.statistics.rate_distortion import fronts, gaps
    from analysis.store.requests import RequestError
    from analysis.store.runs import load_curves, load_runs, missing, to_pandas, units, write_table
    from analysis.tables.results import result_table

# Type checkers and editors read the imports above; at run time `__getattr__` imports by this dict.
# A test asks for every name of `__all__`, so that a forgotten one fails.
_HOME = {
    "comparisons": "claims.findings",
    "complexity_relations": "statistics.complexity",
    "draw": "api",
    "figure": "api",
    "find_confounds": "claims.confounds",
    "fit_metric": "statistics.fits",
    "fit_power_law": "statistics.fits",
    "fronts": "statistics.rate_distortion",
    "gaps": "statistics.rate_distortion",
    "load": "api",
    "load_curves": "store.runs",
    "load_runs": "store.runs",
    "missing": "store.runs",
    "paired_test": "statistics.estimates",
    "plot_fit": "figures.fit_plot",
    "plot_rate_distortion": "figures.rate_distortion",
    "published": "api",
    "result_table": "tables.results",
    "save": "api",
    "spearman": "statistics.estimates",
    "table": "api",
    "to_pandas": "store.runs",
    "units": "store.runs",
    "write_report": "report.report",
    "write_table": "store.runs",
    "LawFit": "statistics.fits",
    "RequestError": "store.requests",
}

__all__ = [
    "LawFit",
    "RequestError",
    "comparisons",
    "complexity_relations",
    "draw",
    "figure",
    "find_confounds",
    "fit_metric",
    "fit_power_law",
    "fronts",
    "gaps",
    "load",
    "load_curves",
    "load_runs",
    "missing",
    "paired_test",
    "plot_fit",
    "plot_rate_distortion",
    "published",
    "result_table",
    "save",
    "spearman",
    "table",
    "to_pandas",
    "units",
    "write_report",
    "write_table",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}")
    # Not cached in the module: `import_module` finds it in `sys.modules` the second time.
    home = import_module(f"analysis.{_HOME[name]}")
    return getattr(home, name)
