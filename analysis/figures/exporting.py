"""What is shown, as the bytes of a file: figures as PDF, tables as CSV."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from analysis.charts.grammar import Chart, Grid, Mark, Plate, Series, axis
from analysis.charts.style import CYCLE, applied
from analysis.studies.trial import Trial, curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def csv_bytes(table: pl.DataFrame) -> bytes:
    """A table as CSV; lists as their items with a space between."""
    lists = [name for name, kind in table.schema.items() if isinstance(kind, pl.List)]
    texts = [pl.col(name).cast(pl.List(pl.String)).list.join(" ") for name in lists]
    return table.with_columns(texts).write_csv().encode()


def plate_pdf(plate: Plate) -> bytes:
    """A figure as PDF, drawn as `python -m analysis figures` does."""
    from analysis.charts.drawing import draw

    return _pdf(draw(plate))


def study_pdf(runs: pl.DataFrame) -> bytes:
    """The figure of a sweep as PDF: its results over its axes."""
    from analysis.figures.plots import draw_figure
    from analysis.figures.sweeps import figure_info

    return _pdf(draw_figure(figure_info(runs)))


def trial_plate(trial: Trial, panels: dict[str, list[str]], grids: Sequence[Grid]) -> Plate:
    """Curves and pictures of a trial as one figure."""
    charts = [_curve(trial, stage, key) for stage, keys in panels.items() for key in keys]
    title = f"{trial.row['sweep']}: {trial.name}"
    return Plate("trial", title, "runs", tuple(charts), (), tuple(grids))


def _curve(trial: Trial, stage: str, key: str) -> Chart:
    points = curve(trial, stage, key).iter_rows()
    marks = tuple(Mark(float(x), y, (), "run") for x, y in points)
    series = Series(trial.name, marks, CYCLE[0], marker="")
    return Chart(stage.replace("_", " "), axis("step"), axis(key), (series,))


def _pdf(figure: Figure) -> bytes:
    file = io.BytesIO()
    with applied():
        figure.savefig(file, format="pdf", bbox_inches="tight")
    return file.getvalue()
