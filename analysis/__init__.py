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
    for finding in analysis.explore(runs).findings:        # comparisons, interactions, trends
        print(finding.sentence, finding.q)
    analysis.pareto(runs, ["psnr", "ar_val_loss"])         # settings that no other beats in both
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
    from analysis.claims.exploration import comparisons, explore
    from analysis.figures.parts.derived import plot_fit
    from analysis.figures.rate_distortion import plot_rate_distortion
    from analysis.report.report import write_report
    from analysis.statistics.complexity import complexity_relations
    from analysis.statistics.estimates import paired_test, spearman
    from analysis.statistics.fits import LawFit, fit_metric, fit_power_law
    from analysis.statistics.pareto import pareto
    from analysis.statistics.rate_distortion import fronts, gaps
    from analysis.store.export import missing, to_pandas, units, write_table
    from analysis.store.requests import RequestError
    from analysis.store.runs import load_curves, load_runs
    from analysis.tables.results import result_table

# Type checkers and editors read the imports above; at run time `__getattr__` imports by this dict.
# A test asks for every name of `__all__`, so that a forgotten one fails.
_NAMES = {
    "api": ("draw", "figure", "load", "published", "save", "table"),
    "claims.confounds": ("find_confounds",),
    "claims.exploration": ("comparisons", "explore"),
    "figures.parts.derived": ("plot_fit",),
    "figures.rate_distortion": ("plot_rate_distortion",),
    "report.report": ("write_report",),
    "statistics.complexity": ("complexity_relations",),
    "statistics.estimates": ("paired_test", "spearman"),
    "statistics.fits": ("LawFit", "fit_metric", "fit_power_law"),
    "statistics.pareto": ("pareto",),
    "statistics.rate_distortion": ("fronts", "gaps"),
    "store.export": ("missing", "to_pandas", "units", "write_table"),
    "store.requests": ("RequestError",),
    "store.runs": ("load_curves", "load_runs"),
    "tables.results": ("result_table",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "LawFit",
    "RequestError",
    "comparisons",
    "complexity_relations",
    "draw",
    "explore",
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
    "pareto",
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
