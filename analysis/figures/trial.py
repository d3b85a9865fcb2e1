"""Curves and pictures of one trial as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.charts.grammar import Chart, FigureData, Grid, Mark, Series, axis
from analysis.charts.style import BLUE, Look
from analysis.studies.trial import LoadedTrial, curve
from gigatok.names import quantity

_LINE = Look(BLUE, "")


def trial_figure(
    trial: LoadedTrial, panels: Mapping[str, Sequence[str]], grids: Sequence[Grid]
) -> FigureData:
    """Collect curves and pictures of a trial.

    Args:
        trial: the trial.
        panels: stage -> names of the curves to show.
        grids: its pictures, beside those of other sizes.
    """
    charts = [curve_chart(trial, stage, key) for stage, keys in panels.items() for key in keys]
    title = f"{trial.row['sweep']}: {trial.name}"
    return FigureData("trial", title, "runs", tuple(charts), (), tuple(grids))


def curve_chart(trial: LoadedTrial, stage: str, key: str) -> Chart:
    """Draw one curve that a stage logged, over its steps."""
    scale = quantity(key).factor
    points = curve(trial, stage, key).iter_rows()
    marks = tuple(Mark(float(step), value * scale, (), "run") for step, value in points)
    series = Series(trial.name, marks, _LINE)
    return Chart(stage.replace("_", " "), axis("step"), axis(key), (series,))
