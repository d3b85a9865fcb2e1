"""The figure of a sweep: its results over its axes, whatever they are."""

from __future__ import annotations

import json
from dataclasses import replace
from statistics import fmean

import polars as pl

from analysis.charts.grammar import FigureData
from analysis.figures.main_axis import main_axis
from analysis.figures.parts.registry import RunsRequest, StoreTrials
from analysis.figures.runs import (
    PICTURES,
    PICTURES_TITLE,
    Panel,
    RunFigure,
    assembled,
)
from analysis.figures.settings import encoding, split
from analysis.statistics.groups import Group, groups, ways
from analysis.store.requests import RequestError
from analysis.store.runs import measured
from analysis.store.selecting import matching
from gigatok.names import METRICS, FigureChoice


def _scaling(size: str) -> tuple[Panel, ...]:
    return (
        Panel(size, "lpips|psnr", "Reconstruction"),
        Panel(size, "ar_val_loss", "Latent complexity"),
        Panel("ar_bits_per_image", "psnr", "Rate–distortion"),
        Panel("rfid", "gfid", "Reconstruction and generation"),
    )


SWEEPS: dict[str, tuple[Panel, ...]] = {
    "decoder_scaling": _scaling("params_decoder"),  # paper Figures 3 and 5, Table 2
    "tokenizer_scaling": _scaling("params_tokenizer"),  # paper Figures 3 and 7
    # Losses per code do not compare between quantizers, bits per image do.
    "quantizers": (
        Panel("ar_bits_per_image", "psnr", "Rate–distortion"),
        Panel("ar_bits_per_image", "rfid", "Rate and rFID"),
        Panel("ar_bits_per_image", "codebook_usage", "Rate and use of codes"),
    ),
}
"""Charts of the sweeps that choose their own; any other one is drawn over its axes."""

_RECONSTRUCTION = "lpips|psnr|rfid"
# One of each kind: reconstruction, codes, complexity, generation, representation.
_CHOSEN = (_RECONSTRUCTION, "codebook_usage", "ar_val_loss", "gfid", "probe_accuracy")
"""Charts of any other sweep."""
_MOST_PICTURED = 6
"""Settings whose pictures a report shows: more would be too small to see."""
_MOST_CHARTS = 9
"""Charts of a figure with panels; the first of `_CHOSEN` stay."""


def sweep_figure(
    runs: pl.DataFrame, choice: FigureChoice | None = None, uri: str = ""
) -> FigureData:
    """Decide the whole figure of a sweep.

    Args:
        runs: trials of one sweep.
        choice: axes to show; by default those that the sweep's `figure` names, if any.
        uri: tracking store of the trials, which curves over steps are read from.

    Raises:
        RequestError: no chart has a single point, or the choice has an unknown name.
    """
    sweep = str(runs["sweep"][0])
    wanted = choice if choice and choice != FigureChoice() else own_choice(runs)
    panels = SWEEPS.get(sweep) or _over_axes(matching(runs, wanted.where))
    # The scale is part of the file's name, so that figures of two scales can share a folder.
    scale = "+".join(dict.fromkeys(s for s in runs["scale"] if s)) or "unnamed"
    declared = RunFigure(f"{sweep}-{scale}", runs["question"][0] or sweep, (sweep,), panels)
    made = assembled(declared, RunsRequest(StoreTrials(runs, uri), wanted))
    if not made.charts:
        labels = ", ".join(METRICS[name].label for name in measured(runs)) or "nothing"
        raise RequestError(
            f"nothing to draw for {sweep!r}: {'; '.join(made.missing)}. Measured: {labels}"
        )
    return made


def from_worst_to_best(found: list[Group], metric: str) -> list[Group]:
    """Choose at most six settings in equal steps of their rank, in the order of the table.

    Args:
        found: settings, in the order of the table.
        metric: whose mean over seeds ranks them; without a value they are left out of many.
    """
    if len(found) <= _MOST_PICTURED:
        return found
    means = {id(g): fmean(v.values()) for g in found if (v := g.values(metric))}
    ranked = sorted(means, key=means.__getitem__)
    steps = _MOST_PICTURED - 1
    chosen = {ranked[round(step * (len(ranked) - 1) / steps)] for step in range(steps + 1)}
    return [group for group in found if id(group) in chosen]


def sweep_pictures(runs: pl.DataFrame, uri: str) -> FigureData | None:
    """Show reconstructions and samples of a sweep; of many settings some, from worst to best.

    Args:
        runs: trials of one sweep.
        uri: tracking store of the trials, which the pictures are read from.

    Returns:
        None where no trial logged any.
    """
    found = groups(runs)
    metric = next((m for m in _RECONSTRUCTION.split("|") if m in measured(runs)), None)
    shown = found if metric is None else from_worst_to_best(found, metric)
    few = runs.filter(pl.col("run_id").is_in([row["run_id"] for g in shown for row in g.rows]))
    sweep, scale = str(runs["sweep"][0]), runs["scale"][0] or "unnamed"
    declared = RunFigure(f"{sweep}-{scale}-pictures", PICTURES_TITLE, (sweep,), pictures=PICTURES)
    made = assembled(declared, RunsRequest(StoreTrials(few, uri)))
    if metric is not None and len(shown) < len(found):
        chosen = f"{len(shown)} of {len(found)} settings, from the worst {METRICS[metric].label} "
        made = replace(made, notes=(f"{chosen}to the best.", *made.notes))
    return made if made.grids else None


def own_choice(runs: pl.DataFrame) -> FigureChoice:
    """Read what the sweep's YAML says about its figure; of several launches the first one's."""
    said = json.loads(runs["figure"][0] or "{}")
    lists = {name: tuple(said.get(name, ())) for name in ("y", "where")}
    return FigureChoice(**{**said, **lists})


def _over_axes(runs: pl.DataFrame) -> tuple[Panel, ...]:
    """Draw one of each kind of result over the main axis; fewer charts where there are panels."""
    found, x = groups(runs), main_axis(runs)
    count = max(1, _MOST_CHARTS // len(split(found, encoding(found, x).panel)))
    chosen = list(_CHOSEN)
    if len(ways(found, "ar_val_loss")) > 1:
        # Losses of a token do not compare between numbers of codes; bits of an image do.
        chosen[chosen.index("ar_val_loss")] = "ar_bits_per_image|ar_val_loss"
    if {use for group in found for use in group.values("codebook_usage").values()} == {1.0}:
        chosen.remove("codebook_usage")  # every code is used everywhere: there is nothing to see
    return tuple(Panel(x, options) for options in chosen[:count])
