"""The figures of the tracking store: what to draw from which sweep, as data, and how it is read.

Trials that differ only in their seed are one mark at their mean; every mark names its runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from shlex import quote
from typing import Any

import polars as pl

from analysis.charts.grammar import Chart, Grid, Mark, Origin, Plate, Series, axis, factor
from analysis.charts.style import CYCLE
from analysis.claims.confounds import find_confounds
from analysis.figures.guidance import SCALE, bars_of_search, guidance_series
from analysis.figures.points import MIN_SIZES_FOR_LINE
from analysis.statistics.estimates import INTERVALS, Interval
from analysis.statistics.groups import Group, choose_interval, groups, seed_of, short, show
from analysis.statistics.pareto import pareto_front
from analysis.store.runs import PROTOCOL, STAGE_KEY, STAGE_RUN, load_curves, measured
from analysis.store.stores import RequestError
from analysis.tables.results import incomplete, protocol_marks, protocol_notes, sweep_and_scale
from gigatok.names import METRICS, PARAM_SEED, PARAM_TOKENIZER, TRAIN_PREFIX

_SIZE = "params_total"
_DIAMOND = "D"
_CURVE = "step"
_NAMED_TRIALS = 6
"""Trials without a result that a caption names; the rest are counted."""


@dataclass(frozen=True)
class RunFigure:
    """What a figure shows of a sweep.

    Attributes:
        sweeps: those that answer the question, best first; the first one is to be launched
            where the store has none.
        charts: x, y and title of each; an x or y such as `rkid|rfid` is the first one measured,
            x `step` makes y a training curve.
        pictures: stage and name of picture grids.
        needs: a metric without which a sweep has nothing to show here.
        options: what a launch needs to measure it.
    """

    title: str
    sweeps: tuple[str, ...]
    charts: tuple[tuple[str, str, str], ...] = ()
    pictures: tuple[tuple[str, str], ...] = ()
    needs: str = ""
    options: str = ""


_QUALITY = (("rfid", "Reconstruction"), ("gfid", "Generation"))
_CODES = ("ar_val_loss", "Code complexity")
_ACCURACY = ("probe_accuracy", "AR representation")


def _over(x: str, *panels: tuple[str, str]) -> tuple[tuple[str, str, str], ...]:
    return tuple((x, y, title) for y, title in panels)


_ALL = (*_QUALITY, _CODES, _ACCURACY, ("lpips|psnr", "Distortion"))

FIGURES: dict[str, RunFigure] = {
    "dilemma": RunFigure(
        "Does a larger tokenizer reconstruct better and generate worse?",
        ("tokenizer_scaling", "decoder_scaling"),
        _over(_SIZE, *_QUALITY, _CODES),
    ),
    "cure": RunFigure(
        "Does semantic regularisation let a larger tokenizer do both better?",
        ("tokenizer_scaling", "decoder_scaling"),
        (("rfid", "gfid", "Both"), *_over(_SIZE, *_ALL)),
    ),
    "entropy": RunFigure(
        "What does entropy loss do to codebook usage over training?",
        ("entropy_loss",),
        (
            (_CURVE, "train/codebook_usage", "Codebook usage"),
            (_CURVE, "train/perceptual_loss", "Perceptual loss"),
            ("tokenizer.entropy_weight", "codebook_usage", "Usage at the end"),
        ),
    ),
    "1d-2d": RunFigure(
        "1D or 2D latent tokens?",
        ("tokenizer_1d_vs_2d",),
        _over(_SIZE, *_QUALITY, _ACCURACY),
    ),
    "encoder-decoder": RunFigure(
        "Parameters in the encoder or in the decoder?",
        ("decoder_scaling", "tokenizer_scaling"),
        _over(_SIZE, *_QUALITY, _ACCURACY),
    ),
    "semantic-ablations": RunFigure(
        "Which layer to align, with which teacher, how strongly?",
        ("semantic_layer", "semantic_teacher", "semantic_weight"),
        tuple(
            (f"tokenizer.{key}", metric, f"{word}")
            for key, word in (
                ("semantic_layer", "Layer"),
                ("teacher", "Teacher"),
                ("semantic_weight", "Weight"),
            )
            for metric in ("rfid", "gfid", "probe_accuracy")
        ),
    ),
    "generators": RunFigure(
        "What does a larger generator buy?",
        ("generator_scaling",),
        _over("params_generator", ("gfid", "Generation"), _CODES, _ACCURACY),
    ),
    "probe-accuracy": RunFigure(
        "What did the generator learn?",
        ("tokenizer_scaling", "decoder_scaling"),
        _over(_SIZE, _ACCURACY),
    ),
    "latent-complexity": RunFigure(
        "How complex are the codes of larger tokenizers?",
        ("tokenizer_scaling", "decoder_scaling"),
        _over(
            _SIZE,
            _CODES,
            ("ar_bits_per_image", "Bits of an image"),
            ("unigram_entropy", "Codes alone"),
            ("bigram_entropy", "Codes in pairs"),
            ("codebook_usage", "Codebook usage"),
            ("effective_rank", "Rank of the codes"),
        ),
    ),
    "training-duration": RunFigure(
        "What does longer tokenizer training buy? (the question of paper Figure 12)",
        ("training_duration",),
        _over("tokenizer.steps", *_QUALITY, _CODES, _ACCURACY),
    ),
    "training-curves": RunFigure(
        "Training of the tokenizers",
        ("tokenizer_scaling", "decoder_scaling"),
        (
            (_CURVE, "train/loss", "Loss"),
            (_CURVE, "train/reconstruction_loss", "Reconstruction loss"),
            (_CURVE, "train/codebook_usage", "Codebook usage"),
        ),
    ),
    "guidance-search": RunFigure(
        "Which guidance scale is best? (of samples that are used for nothing else)",
        ("decoder_scaling", "tokenizer_scaling", "tokenizer_1d_vs_2d", "generator_scaling"),
        (
            (SCALE, "guidance/gkid", "KID"),
            (SCALE, "guidance/gfid", "FID"),
        ),
        needs="best_cfg_scale",
        options=" --set guidance.search=grid",
    ),
    "image-grids": RunFigure(
        "Reconstructions (pairs: original, reconstruction) and samples, by size",
        ("tokenizer_scaling", "decoder_scaling"),
        pictures=(
            ("evaluate_reconstruction", "reconstructions"),
            ("evaluate_generation", "samples"),
        ),
    ),
}


_VARIED = {
    "semantic_layer": "tokenizer.semantic_layer",
    "semantic_teacher": "tokenizer.teacher",
    "semantic_weight": "tokenizer.semantic_weight",
}
"""What the sweeps of `semantic-ablations` are about."""


def run_plate(
    name: str,
    runs: pl.DataFrame,
    uri: str,
    *,
    curves: Sequence[str] = (),
    beside_paper: bool = False,
) -> Plate:
    """Read one figure from the store.

    Args:
        name: a key of `FIGURES`.
        runs: trials of all sweeps, of one scale.
        uri: for curves and pictures.
        curves: logged names to draw over steps, instead of the figure's own charts.
        beside_paper: FID as the paper has it, where KID was measured too.

    Raises:
        RequestError: the store has no data for it; the message names the sweep to launch.
    """
    wanted = FIGURES[name]
    if curves:
        logged = tuple((_CURVE, c, c) for c in curves)
        wanted = replace(wanted, title="Training curves", charts=logged)
    if not beside_paper:
        wanted = replace(wanted, charts=tuple(map(_steadier, wanted.charts)))
    several = set(wanted.sweeps) == set(_VARIED)
    tables = _tables(wanted, runs, several=several)
    charts, missing, notes, grids = [], [], [], []
    for table in tables:
        own = [s for s in wanted.charts if not several or s[0] == _VARIED[table["sweep"][0]]]
        found = groups(table)
        for spec in own:
            chart = _chart(found, table, spec, uri)
            if chart and name == "encoder-decoder":
                best = pareto_front(chart.series, None, METRICS[chart.y.key].better)
                best = replace(best, name="runs, Pareto front")
                chart = replace(chart, series=(*chart.series, best))
            missing += [] if chart else [f"{spec[1]} (not in {table['sweep'][0]})"]
            charts += [chart] if chart else []
        keys = [k for x, y, _ in own for k in (first_measured(x, table), first_measured(y, table))]
        keys += [wanted.needs] if wanted.needs else []
        shown = [key for key in keys if key in METRICS]
        bars = bars_of_search(charts) if any(x == SCALE for x, *_ in own) else ""
        notes += [*mark_notes(found, table, shown, bars=bars), *_warnings(table, shown)]
        grids += [g for spec in wanted.pictures if (g := _grid(found, spec, uri))]
    if not charts and not grids:
        raise _nothing(name, wanted)
    return Plate(
        name, wanted.title, "runs", tuple(charts), tuple(notes), tuple(grids), tuple(missing)
    )


def _steadier(spec: tuple[str, str, str]) -> tuple[str, str, str]:
    """KID before FID: at few images FID is mostly bias, and KID has an error of its own."""
    better = {"rfid": "rkid|rfid", "gfid": "gkid|gfid"}
    x, y, title = spec
    return better.get(x, x), better.get(y, y), title


def _tables(wanted: RunFigure, runs: pl.DataFrame, *, several: bool) -> list[pl.DataFrame]:
    """The trials of the first sweep that has results, or of every one."""
    tables = [runs.filter(pl.col("sweep") == sweep) for sweep in wanted.sweeps]
    tables = [table for table in tables if len(table) and measured(table)]
    if wanted.needs:
        tables = [table for table in tables if wanted.needs in measured(table)]
    return tables if several else tables[:1]


def _nothing(name: str, wanted: RunFigure) -> RequestError:
    launches = " or ".join(
        f"`python -m orchestration.launch {quote(s)}{wanted.options}`" for s in wanted.sweeps
    )
    return RequestError(f"{name}: no runs for it in the store; they come from {launches}")


def first_measured(options: str, table: pl.DataFrame) -> str:
    """The first of `a|b` that was measured, else the first."""
    have = measured(table)
    names = options.split("|")
    return next((name for name in names if name in have), names[0])


def _chart(
    found: Sequence[Group], table: pl.DataFrame, spec: tuple[str, str, str], uri: str
) -> Chart | None:
    """One chart; None where no setting has both coordinates."""
    x, y, title = first_measured(spec[0], table), first_measured(spec[1], table), spec[2]
    across = axis(x)
    series, ticks = _series(found, x, y, uri)
    if not series:
        return None
    return Chart(
        title,
        across,
        axis(y.removeprefix(TRAIN_PREFIX)),
        tuple(series),
        ticks=ticks,
        log_x=across.counts_parameters,
        better_up=x in METRICS and METRICS[x].better == "lower",
    )


def settings_series(
    found: Sequence[Group], x: str, y: str
) -> tuple[list[Series], tuple[tuple[float, str], ...]]:
    """A series for each setting but x and, where x is a metric, the tokenizer.

    What was measured in another way is a series of its own, marked as in the notes. A mark of two
    metrics is the mean of both over the seeds that have both.
    """
    interval = choose_interval(found)
    names = _names(found, x)
    ways = [protocol_marks(found, metric) for metric in (x, y) if metric in METRICS]
    lines: dict[str, list[Mark]] = {}
    for group in found:
        mark = _mark(group, x, y, interval, names)
        if mark is not None:
            name = _series_name(group, x) + _ways_of(group, (x, y), ways)
            lines.setdefault(name, []).append(mark)
    ticks = tuple((float(i), name) for name, i in names.items())
    made = []
    for i, (name, marks) in enumerate(lines.items()):
        repeated = any(len(mark.origins) > 1 for mark in marks)
        joined = len(marks) >= MIN_SIZES_FOR_LINE and repeated and not names
        marks.sort(key=lambda mark: mark.x)
        made.append(Series(name, tuple(marks), CYCLE[i % len(CYCLE)], _DIAMOND, joined=joined))
    return made, ticks


def _names(found: Sequence[Group], x: str) -> dict[str, int]:
    """Positions of the values of a config key that are not numbers."""
    if x in METRICS:
        return {}
    values = dict.fromkeys(group.rows[0].get(x) for group in found)
    if all(isinstance(value, int | float) for value in values):
        return {}
    return {show(value): i for i, value in enumerate(values)}


def _series_name(group: Group, x: str) -> str:
    over_generators = x == "params_generator"
    beside = ("generator.size",) if over_generators else (x,)
    words = [f"{short(k)}={show(v)}" for k, v in group.setting if not k.startswith(beside)]
    named = [] if x in METRICS and not over_generators else [group.tokenizer]
    return " ".join(["runs", *named, *words])


def _ways_of(group: Group, metrics: Sequence[str], ways: Sequence[Mapping[str, str]]) -> str:
    """The marks of the protocols of a group's metrics, where there are several: ` [b]`."""
    measured_as = [p for name in metrics if name in METRICS for p in group.protocols(name)[:1]]
    marks = {marks[p] for marks, p in zip(ways, measured_as, strict=True)} - {""}
    return "".join(f" [{mark}]" for mark in sorted(marks))


def _mark(group: Group, x: str, y: str, interval: Interval, names: dict[str, int]) -> Mark | None:
    if y not in METRICS:
        return None
    if x in METRICS:
        group = group.with_all(x, y)
    estimate = group.estimate(y, interval)
    if x in METRICS:
        found = group.estimate(x, interval)
        across = None if found is None else found.mean * factor(x)
    else:
        value = group.rows[0].get(x)
        across = float(names[show(value)]) if names else None if value is None else float(value)
    if estimate is None or across is None:
        return None
    scale, spread = factor(y), estimate.interval != "none"
    used = group.values(y)
    return Mark(
        across,
        estimate.mean * scale,
        tuple(origin(row, y) for row in group.rows if seed_of(row) in used),
        "run",
        group.tokenizer if x in METRICS and x != "params_generator" else "",
        estimate.low * scale if spread else None,
        estimate.high * scale if spread else None,
    )


def origin(row: Any, metric: str) -> dict[str, Any]:
    """What leads from a mark to a run: MLflow id, config key, code."""
    keys = {k.removeprefix(STAGE_KEY): v for k, v in row.items() if v and k.startswith(STAGE_KEY)}
    context = ("run_id", "trial", "trial_key", "sweep", "scale", "plan", "git_sha", "git_dirty")
    return {
        "id": row["run_id"],
        **{name: row[name] for name in context},
        "seed": row[PARAM_SEED],
        "stage_keys": keys,
        "metric": metric,
        "value": row.get(metric),
        "protocol": row.get(PROTOCOL + metric),
    }


def _series(
    found: Sequence[Group], x: str, y: str, uri: str
) -> tuple[list[Series], tuple[tuple[float, str], ...]]:
    """What is drawn over x, and where x has ticks with names."""
    if x == SCALE:
        return guidance_series(found, y, uri), ()
    return (_curves(found, y, uri), ()) if x == _CURVE else settings_series(found, x, y)


def _curves(found: Sequence[Group], metric: str, uri: str) -> list[Series]:
    """A training curve of every trial, from the stage run that logged it."""
    made = []
    stage = "train_generator" if metric.startswith("generator:") else "train_tokenizer"
    name = metric.removeprefix("generator:")
    scale = factor(name)
    for i, group in enumerate(found):
        for row in group.rows:
            run_id = row.get(STAGE_RUN + stage)
            curve = load_curves([run_id], name, uri) if run_id else None
            if curve is None or curve.is_empty():
                continue
            shared: Origin = {
                "id": run_id,
                **{k: row[k] for k in ("trial", "git_sha")},
                "stage_key": row.get(STAGE_KEY + stage),
                "metric": name,
            }
            marks = tuple(
                Mark(float(step), value * scale, (shared,), "run")
                for step, value in curve.select("step", "value").iter_rows()
            )
            label = group.label + (f" seed={row[PARAM_SEED]}" if len(group.rows) > 1 else "")
            made.append(Series(f"runs {label}", marks, CYCLE[i % len(CYCLE)], _DIAMOND))
    return made


def _grid(found: Sequence[Group], spec: tuple[str, str], uri: str) -> Grid | None:
    """The logged picture of the first seed of every setting that has one."""
    from analysis.store.pictures import logged_picture

    stage, name = spec
    columns = []
    for group in found:
        found_of = ((row, logged_picture(uri, row["run_id"], stage, name)) for row in group.rows)
        row, png = next(((r, png) for r, png in found_of if png is not None), (None, None))
        if png is not None:
            columns.append((group.label, origin(row, name), png))
    return Grid(name, tuple(columns)) if columns else None


def mark_notes(
    found: Sequence[Group], table: pl.DataFrame, metrics: Sequence[str], *, bars: str = ""
) -> list[str]:
    """Whose marks they are, what their bars mean, and how the metrics were measured.

    Without `bars` they are the intervals that the groups' estimates have.
    """
    kinds = {
        estimate.interval
        for group in found
        for metric in metrics
        if (estimate := group.estimate(metric, choose_interval(found)))
    }
    bars = bars or "; ".join(INTERVALS[kind] for kind in sorted(kinds))
    tokenizers = ", ".join(dict.fromkeys(table[PARAM_TOKENIZER].to_list()))
    first = f"Runs: {sweep_and_scale(table)} ({tokenizers})." + (f" Bars: {bars}." if bars else "")
    return [first, *protocol_notes(found, dict.fromkeys(metrics))]


def _warnings(table: pl.DataFrame, metrics: Sequence[str]) -> list[str]:
    """What else differs between the trials of a figure, and which of its numbers are absent."""
    shown = {*metrics, *(["params_head"] if _SIZE in metrics else [])}
    nothing = pl.lit(None, pl.Float64)
    drawn = table.with_columns(nothing.alias(name) for name in METRICS if name not in shown)
    wanted = [name for name in dict.fromkeys(metrics) if name in measured(table)]
    absent = incomplete(table, wanted)
    more = len(absent) - _NAMED_TRIALS
    return [
        *find_confounds(drawn),
        *absent[:_NAMED_TRIALS],
        *([f"{more} more trials are not complete or lack a number."] if more > 0 else []),
    ]
