"""Curves of several settings in one chart, and the axes of a study's first figure."""

from __future__ import annotations

import pytest

from analysis.charts.style import CYCLE
from analysis.figures.curves import overlay
from analysis.figures.scaling import default_axes
from analysis.statistics.groups import groups
from analysis.store.runs import load_runs


def test_means_over_seeds_and_single_curves(uri: str) -> None:
    found = {group.label: group for group in groups(load_runs("decoder_scaling", uri))}
    chart = overlay(found, "train_tokenizer", "train/loss", uri, 0.0, means=True)
    assert [series.name for series in chart.series] == list(found)
    first, alone = chart.series[0], chart.series[2]
    # The point of step 2 that was written last counts.
    assert [(m.x, m.y) for m in first.marks] == [(1.0, 0.9), (2.0, 0.6), (3.0, 0.5)]
    assert {mark.y_bar and mark.y_bar.kind for mark in first.marks} == {"half_range"}
    assert [mark.y_bar for mark in alone.marks] == [None] * 3  # one seed
    single = overlay(found, "train_tokenizer", "train/loss", uri, 0.0, means=False)
    assert len(single.series) == 9
    assert single.series[0].name == "S-S seed=0"
    assert overlay(found, "train_generator", "train/loss", uri, 0.0, means=True).series == ()


def test_more_settings_than_colours_are_told_apart_by_dashes(uri: str) -> None:
    (group, *_) = groups(load_runs("decoder_scaling", uri))
    many = {f"setting {number}": group for number in range(len(CYCLE) + 1)}
    found = overlay(many, "train_tokenizer", "train/loss", uri, 0.0, means=True).series
    assert [series.dashed for series in found] == [False] * len(CYCLE) + [True]
    assert found[0].look == found[-1].look


def test_smoothing_weighs_what_was_before(uri: str) -> None:
    (group, *_) = groups(load_runs("decoder_scaling", uri))
    (series,) = overlay(
        {"S-S": group}, "train_tokenizer", "train/loss", uri, 0.5, means=True
    ).series
    second = (0.6 + 0.5 * 0.9) / 1.5
    third = (0.5 + 0.5 * 0.6 + 0.25 * 0.9) / 1.75
    assert [mark.y for mark in series.marks] == pytest.approx([0.9, second, third])


@pytest.mark.parametrize(
    ("sweep", "metric", "axes"),
    [
        ("decoder_scaling", "psnr", ("params_tokenizer", "psnr")),
        ("entropy_loss", None, ("tokenizer.entropy_weight", "psnr")),
        ("tokenizer_scaling", "gfid", ("params_tokenizer", "rkid")),  # gFID was not measured
    ],
)
def test_a_study_is_drawn_over_what_it_varies(
    uri: str, sweep: str, metric: str | None, axes: tuple[str, str]
) -> None:
    assert default_axes(load_runs(sweep, uri), metric) == axes
