"""The functions of `import analysis`: load trials, make figures and tables, read the paper.

    runs = analysis.load("decoder_scaling", store="sqlite:///runs/mlflow.db")
    data = analysis.figure("cure")                       # the paper's Figure 7, as data
    data = analysis.figure("cure", source="both", store="sqlite:///runs/mlflow.db")
    data = analysis.figure(runs)                         # the figure of a sweep
    analysis.draw(data, venue="neurips")                 # a Matplotlib figure
    analysis.save(data, "figures")                       # PDF, PNG, numbers (CSV), origins (JSON)
    analysis.table(runs)                                 # a row per setting, seeds merged
    analysis.published(metric="gfid", place="Table 10")  # a row per published number

Heavy imports wait for a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from analysis.store.requests import DEFAULT_URI, RequestError, sweep_name
from gigatok.names import FigureChoice

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.figure import Figure

    from analysis.charts.grammar import FigureData
    from analysis.tables.results import ResultTable

Format = Literal["pdf", "png", "svg"]


def load(
    sweep: str | None = None,
    store: str = DEFAULT_URI,
    *,
    plan: str | None = None,
    scale: str | None = None,
) -> pl.DataFrame:
    """Read the trials of a sweep, one row each, failed ones included.

    Args:
        sweep: name of the sweep or its YAML file; None for all sweeps.
        store: a database such as `sqlite:///PATH`, or a tracking server.
        plan: a plan key or its beginning, `"all"`, or None for the newest launch of each sweep.
        scale: only launches at this scale.

    Raises:
        RequestError: no such store, sweep, plan or scale, or no trial in it.
    """
    from analysis.store.runs import load_runs

    # A YAML file is taken for its name only: the sweep is read from the store, not from the file.
    name = None if sweep is None else sweep_name(sweep)
    return load_runs(name, store, plan=plan, scale=scale)


def figure(
    what: str | pl.DataFrame,
    *,
    source: Literal["published", "runs", "both"] = "published",
    store: str = DEFAULT_URI,
    scale: str | None = None,
    x: str = "",
    y: str | Sequence[str] = (),
    by: str = "",
    panel: str = "",
    where: Sequence[str] = (),
    sweep: str = "",
) -> FigureData:
    """Make a figure as data: charts of series of marks, each with its origins.

    Args:
        what: a named figure (or its number in the paper, such as `"figure7"`), or the trials of
            one sweep, which give the figure of that sweep.
        source: numbers of a named figure: published, runs of the store, or both on the same axes.
        store: a database such as `sqlite:///PATH`, or a tracking server.
        scale: scale of the runs; by default that of the newest launch.
        x: a metric, a config key or `step`, instead of the figure's own.
        y: metrics, or logged names over `step` (`generator:NAME` for those of generators).
        by: config key that colour and shape tell apart.
        panel: config key with a panel for each of its values.
        where: `KEY=VALUE` or `KEY=VALUE,VALUE`, which trials must meet to be shown.
        sweep: of the store, whose runs a named figure shows; "": those that it was made for.

    Raises:
        RequestError: no such figure, or the source has no data for it.
    """
    from analysis.figures import gallery
    from analysis.figures.parts.registry import FIGURES
    from analysis.figures.sweeps import sweep_figure

    # Trials name their own sweep; `source` and `scale` belong to named figures.
    choice = FigureChoice(x, (y,) if isinstance(y, str) else tuple(y), by, panel, tuple(where))
    if not isinstance(what, str):
        return sweep_figure(what, choice, store)
    name = gallery.known(what)
    if name is None:
        raise RequestError(
            f"no figure {what!r}; there are {', '.join(FIGURES)}. For the figure of a "
            "sweep give its trials: figure(load(SWEEP))"
        )
    # Published figures need no store, so that none is opened or missed.
    trials = None if source == "published" else gallery.open_trials(store, scale, sweep)
    return gallery.named_figure(name, source, trials, choice)


def draw(data: FigureData, *, venue: str = "plain", column: bool = False) -> Figure:
    """Draw a figure with Matplotlib.

    Args:
        data: a figure as `figure` returns it.
        venue: conference whose text width and font to use, such as `neurips`.
        column: draw it one column wide instead.

    Raises:
        RequestError: an unknown venue.
    """
    from analysis.charts import drawing, style

    return drawing.draw(data, style.page(venue, column=column))


def save(
    data: FigureData,
    folder: Path | str,
    formats: Sequence[Format] = ("pdf", "png"),
    *,
    venue: str = "plain",
    column: bool = False,
) -> list[Path]:
    """Write a figure in some formats, its numbers (CSV) and where each is from (JSON).

    Args:
        data: a figure as `figure` returns it.
        folder: the folder to write to; created if needed.
        formats: some of `pdf`, `png` and `svg`.
        venue: see `draw`.
        column: see `draw`.

    Raises:
        RequestError: an unknown venue.
    """
    from analysis.charts import files, style

    # A figure at the venue's width needs no scaling in LaTeX, which would shrink its letters.
    return files.write(data, Path(folder), formats, style.page(venue, column=column))


def table(what: str | pl.DataFrame) -> ResultTable:
    """Make a table: of trials, or of published numbers.

    Args:
        what: trials as `load` returns them, or the name of a published table such as `"table10"`.

    Raises:
        RequestError: no such published table.
    """
    from analysis.tables.published import TABLES
    from analysis.tables.results import result_table

    if not isinstance(what, str):
        return result_table(what)
    if what not in TABLES:
        raise RequestError(f"no published table {what!r}; there are {', '.join(TABLES)}")
    return TABLES[what]()


def published(**wanted: Any) -> pl.DataFrame:
    """Read the published numbers, of the paper and its peers: a row each, with its source.

    Args:
        wanted: column -> value, such as `metric="gfid"`, to select rows.
    """
    import polars as pl

    from analysis.paper.published import facts

    # All rows decide the types: the first ones have many columns empty.
    rows = [fact.model_dump() | {"citation": fact.citation} for fact in facts()]
    found = pl.DataFrame(rows, infer_schema_length=None)
    return found.filter(*(pl.col(name) == value for name, value in wanted.items()))
