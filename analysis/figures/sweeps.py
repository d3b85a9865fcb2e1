"""Which figure answers which sweep: a function from trials to panels per sweep name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import polars as pl

from analysis.charts import style
from analysis.figures.plots import FigureInfo
from analysis.figures.points import Axis, Panel, key_axis, make_panel, metric_axis
from analysis.statistics.estimates import INTERVALS
from analysis.statistics.groups import Group, choose_interval, groups
from analysis.store.runs import measured
from analysis.store.stores import RequestError
from analysis.tables.results import protocol_notes, sweep_and_scale
from gigatok.names import METRICS, PARAM_TOKENIZER

Panels = tuple[list[Panel], list[str]]
"""The panels that can be drawn, and the titles of those that cannot."""

_CHOSEN = (
    ("lpips", "psnr", "rfid"),
    ("codebook_usage",),
    ("ar_val_loss",),
    ("gkid", "gfid"),
    ("probe_accuracy",),
)
"""One panel each of a sweep without a figure of its own: the first metric that was measured."""


def decoder_scaling(runs: pl.DataFrame) -> Panels:
    """Paper Figures 3 and 5, Table 2: what a larger decoder does, over its parameters."""
    return _scaling(runs, "params_decoder")


def tokenizer_scaling(runs: pl.DataFrame) -> Panels:
    """Paper Figures 3 and 7: what a larger tokenizer does, over all its parameters."""
    return _scaling(runs, "params_total")


def over_axes(runs: pl.DataFrame) -> Panels:
    """Chosen metrics over the first axis that varies; over the tokenizer where none does."""
    found = groups(runs)
    identity = list(found[0].identity)
    key = next((c for c in identity if c != PARAM_TOKENIZER), PARAM_TOKENIZER)
    have = measured(runs)
    axis = key_axis(found, key)
    if key == PARAM_TOKENIZER and "params_total" in have:
        axis = metric_axis("params_total")
    wanted = [next((m for m in options if m in have), options[0]) for options in _CHOSEN]
    specs = [(METRICS[metric].label, axis, metric) for metric in wanted]
    return _panels(found, specs, joined=not axis.categories)


FIGURES: dict[str, Callable[[pl.DataFrame], Panels]] = {
    "decoder_scaling": decoder_scaling,
    "tokenizer_scaling": tokenizer_scaling,
}
"""Sweep name to its figure; any other sweep gets `over_axes`."""


def figure_info(runs: pl.DataFrame) -> FigureInfo:
    """Decide the whole figure of a sweep.

    Raises:
        RequestError: no panel has a single point.
    """
    sweep = str(runs["sweep"][0])
    panels, empty = FIGURES.get(sweep, over_axes)(runs)
    if not panels:
        labels = ", ".join(METRICS[name].label for name in measured(runs)) or "nothing"
        raise RequestError(
            f"nothing to draw for {sweep!r}: {'; '.join(empty)}. Measured: {labels}"
        )
    lettered = tuple(_lettered(i, panel) for i, panel in enumerate(panels))
    scale = "+".join(dict.fromkeys(s for s in runs["scale"] if s)) or "unnamed"
    question = runs["question"][0] or sweep
    return FigureInfo(f"{sweep}-{scale}", question, lettered, _caption(runs, lettered, empty))


def _scaling(runs: pl.DataFrame, size: str) -> Panels:
    found = groups(runs)
    have = measured(runs)
    x = metric_axis(size)
    reconstruction = next((m for m in ("lpips", "psnr") if m in have), "lpips")
    fid = "fid" if {"rfid", "gfid"} <= set(have) and "gkid" not in have else "kid"
    sizes = [("Reconstruction", x, reconstruction), ("Latent complexity", x, "ar_val_loss")]
    planes = [
        ("Rate–distortion", metric_axis("ar_bits_per_image"), "psnr"),
        ("Reconstruction and generation", metric_axis(f"r{fid}"), f"g{fid}"),
    ]
    made, empty = _panels(found, sizes, joined=True)
    more, more_empty = _panels(found, planes, joined=False)
    return made + more, empty + more_empty


def _panels(
    found: Sequence[Group], specs: Sequence[tuple[str, Axis, str]], *, joined: bool
) -> Panels:
    interval = choose_interval(found)
    made, empty = [], []
    for title, x, y in specs:
        panel = make_panel(found, title, x, y, interval=interval, joined=joined)
        if panel is None:
            empty.append(f"{title} ({_why_empty(found, x, y)})")
        else:
            made.append(panel)
    return made, empty


def _why_empty(found: Sequence[Group], x: Axis, y: str) -> str:
    keys = [key for key in (x.key, y) if key in METRICS]
    absent = [METRICS[k].label for k in keys if not any(group.values(k) for group in found)]
    return f"{', '.join(absent)} not measured" if absent else "no trial has both coordinates"


def _lettered(index: int, panel: Panel) -> Panel:
    return replace(panel, title=f"({'abcdefgh'[index]}) {panel.title}")


def _caption(runs: pl.DataFrame, panels: Sequence[Panel], empty: Sequence[str]) -> tuple[str, ...]:
    """What bars and marks mean; how the metrics were measured; what is not shown."""
    keys = [k for panel in panels for k in (panel.x.key, panel.y.key) if k in METRICS]
    protocols = protocol_notes(groups(runs), dict.fromkeys(keys))
    omitted = [
        f"{panel.title[:3]} {', '.join(panel.omitted)}" for panel in panels if panel.omitted
    ]
    absent = "; ".join([*omitted, *empty])
    lines = (
        f"{sweep_and_scale(runs)}. {_legend(panels)}",
        " ".join(protocols),
        f"Not shown: {absent}." if absent else "",
    )
    return tuple(line for line in lines if line)


def _legend(panels: Sequence[Panel]) -> str:
    points = [point for panel in panels for point in panel.points]
    kinds = {e.interval for p in points for e in (p.x, p.y)} - {"none"}
    bars = "; ".join(INTERVALS[kind] for kind in sorted(kinds)) or "none"
    counts = sorted({len(point.seeds) for point in points})
    numbers = " to ".join(str(n) for n in dict.fromkeys((counts[0], counts[-1])))
    sentences = [f"Seeds per setting: {numbers}.", f"Bars: {bars}."]
    if counts[-1] > 1:
        sentences.append("Large marks are means, small open marks seeds.")
    regularised = {point.regularised for point in points}
    if True in regularised:
        sentences.append(style.MARKER_KEY if False in regularised else style.ALL_REGULARISED)
    if any(panel.lines for panel in panels):
        sentences.append("Grey lines only join means; nothing is fitted.")
    return " ".join(sentences)
