"""The figures of the paper's own numbers: one function each.

Every mark carries the rows of `paper/data/facts.csv` that it is drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.charts.grammar import Chart, FigureData, Mark, Remark, Series, Ticks, axis
from analysis.charts.style import GREEN, ORANGE, WITH, WITHOUT, Look, of_setting, of_tokenizer
from analysis.figures.derived import pareto_front
from analysis.figures.published_marks import (
    SIZES,
    as_built,
    mark,
    other_s_b,
    other_s_b_plane,
    same_setting,
    size_ticks,
    sized,
    with_length,
)
from analysis.figures.registry import published
from analysis.paper.published import Fact, absent, one, select, short
from gigatok.names import METRICS, quantity

_ERRORS = "Read to within .002 (FID, loss), .0001 (LPIPS), .05 points (accuracy)."


def _by_size(metric: str, title: str, lines: Sequence[Series], ticks: Ticks, **more: Any) -> Chart:
    # The paper's sizes count a head that only training uses (confound 6), as the ticks show.
    size = axis("params_total", "size + training head (M)", ticks)
    return Chart(title, size, axis(metric), tuple(lines), **more)


@published("dilemma", "figure3")
def dilemma() -> FigureData:
    """Make Figure 3: tokenizers without semantic regularisation, over their size."""
    panels = (
        ("rfid", "rFID improves"),
        ("gfid", "gFID gets worse"),
        ("ar_val_loss", "Codes more complex"),
    )
    # Places of remarks are in the units of the axes, here millions of parameters and rFID, where
    # nothing else is drawn.
    unstated = (Remark(235, 1.5, "training length\nnot stated", WITHOUT.colour),)
    charts = [
        _by_size(
            metric,
            title,
            [sized("without semantic regularisation", select("Figure 3", metric=metric), WITHOUT)],
            ticks=size_ticks(*SIZES),
            remarks=unstated if metric == "rfid" else (),
        )
        for metric, title in panels
    ]
    return FigureData(
        "dilemma",
        "The dilemma: larger tokenizers reconstruct better and generate worse (paper Figure 3)",
        "published",
        tuple(charts),
        (*short(1, 6, 12), _ERRORS),
    )


@published("cure", "figure7")
def cure() -> FigureData:
    """Make Figure 7: the dilemma without, and its cure with semantic regularisation."""
    panels = (
        ("rfid", "Reconstruction"),
        ("gfid", "Generation"),
        ("ar_val_loss", "Code complexity"),
        ("probe_accuracy", "AR representation"),
        ("lpips", "Perceptual distance"),
    )
    looks = (
        ("without semantic regularisation (epochs not stated)", False, WITHOUT),
        ("with semantic regularisation (200 epochs unless marked)", True, WITH),
    )

    # The other rows of S-B stand at 232 M, the size that Table 9 gives for it.
    def lines(metric: str) -> list[Series]:
        made = [
            sized(name, select("Figure 7", metric=metric, semantic=on), look)
            for name, on, look in looks
        ]
        return [*map(with_length, made), *other_s_b("Figure 7", metric, 232.0)]

    charts = [_by_size(m, title, lines(m), size_ticks(*SIZES)) for m, title in panels]
    planes = [_plane("Figure 7", *of) for of in looks]
    return FigureData(
        "cure",
        "A larger tokenizer reconstructs better but generates worse, "
        "unless semantic regularisation keeps its codes simple (paper Figure 7)",
        "published",
        # The plane first, as it is the big one and takes the first four cells.
        (_trade([*planes, *other_s_b_plane("rfid", "gfid")]), *charts),
        (*short(1, 2, 6, 9, 12), _ERRORS),
    )


def _plane(place: str, name: str, semantic: bool, look: Look) -> Series:
    """Join reconstruction and generation of each size, smallest first."""
    marks = [
        mark(
            one(place, "rfid", semantic=semantic, tokenizer=tokenizer),
            one(place, "gfid", semantic=semantic, tokenizer=tokenizer),
            *_length(tokenizer, semantic=semantic),
        )
        # In the order of size, which the arrows follow.
        for tokenizer in SIZES
    ]
    return Series(name, tuple(marks), look, arrows=True)


def _length(tokenizer: str, *, semantic: bool) -> tuple[Any, ...]:
    """Label a size with its training length where that is known, and return the fact of it."""
    label = f"{tokenizer} {one('Table 9', 'params_total', tokenizer=tokenizer).value:.0f} M"
    if not semantic:
        return (label,)
    # Of the regularised checkpoints alone: the schedule without is not stated (confound 1).
    epochs = one("Table 9", "epochs", tokenizer=tokenizer, variant="1d")
    return f"{label}, {epochs.value:.0f} ep.", epochs


def _of_variant(variant: str) -> Look:
    look = of_setting("tokenizer.variant", variant)
    assert look is not None, "1D and 2D have looks of their own"
    return look


def _trade(lines: Sequence[Series]) -> Chart:
    # Places in rFID and gFID, on the side of the plane where each curve runs.
    words = (
        Remark(
            1.6, 11.1, "dilemma: larger ones\nreconstruct better,\ngenerate worse", WITHOUT.colour
        ),
        Remark(1.6, 5.0, "cure: larger ones\ndo both better", WITH.colour),
    )
    return Chart(
        "What a larger tokenizer buys",
        axis("rfid", "reconstruction: rFID"),
        axis("gfid", "generation: gFID"),
        tuple(lines),
        better_up=True,
        big=True,
        remarks=words,
    )


@published("1d-2d", "figure9")
def one_d_two_d() -> FigureData:
    """Make Figure 9: 1D against 2D tokenizers, all regularised."""
    looks = (
        ("1D (200 epochs unless marked)", "1d"),
        ("2D (epochs not stated)", "2d"),
    )
    panels = (
        ("rfid", "Reconstruction"),
        ("gfid", "Generation"),
        ("probe_accuracy", "AR representation"),
    )
    # Round numbers instead of `size_ticks`: 1D and 2D tokenizers of one name differ in size.
    ticks = tuple((size, f"{size:g}") for size in (100.0, 200.0, 400.0, 600.0))

    def lines(metric: str) -> list[Series]:
        one_d, two_d = (
            sized(name, select("Figure 9", metric=metric, variant=v), _of_variant(v))
            for name, v in looks
        )
        return [with_length(one_d), as_built(two_d), two_d]  # the line ends below its diamond

    charts = [_by_size(m, title, lines(m), ticks) for m, title in panels]
    return FigureData(
        "1d-2d",
        "1D tokenizers reconstruct better at every size; 2D ones generate better while small "
        "(paper Figure 9: S-S, S-B and B-L of each kind)",
        "published",
        tuple(charts),
        (*short(1, 4, 8, 12), _ERRORS),
    )


@published("entropy", "figure5")
def entropy() -> FigureData:
    """Make Figure 5: XL-XXL with and without entropy loss, over training."""

    def lines(metric: str) -> tuple[Series, ...]:
        # Means over the last iterations are facts of Figure 5 as well, and belong to no step.
        found = [fact for fact in select("Figure 5", metric=metric) if fact.step is not None]
        looks = (("without entropy loss", False, WITHOUT), ("with it", True, WITH))
        return tuple(
            Series(
                name,
                tuple(mark(float(f.step or 0), f) for f in found if f.entropy is on),
                look,
            )
            for name, on, look in looks
        )

    charts = (
        Chart("Codebook usage", axis("step"), axis("codebook_usage"), lines("codebook_usage")),
        Chart("Perceptual loss", axis("step"), axis("perceptual_loss"), lines("perceptual_loss")),
    )
    return FigureData(
        "entropy",
        "At 2.9 B (XL-XXL) training collapses without entropy loss (paper Figure 5)",
        "published",
        charts,
        (
            "Points between which lines are drawn are medians of noisy curves, read to ±2 points "
            "of usage and ±.02 of loss.",
            *short(12),
        ),
    )


@published("probe-agreement", "figure6")
def probe_agreement() -> FigureData:
    """Make Figure 6: the small AR probe against a full-size generator, on the same tokenizer."""
    charts = []
    for metric in ("gfid", "probe_accuracy"):
        small = one("Table 2", metric, tokenizer="B-L")
        large = one("README", metric, tokenizer="B-L", setting="larger-AR table")
        # R² is what the paper prints of this figure; of its three points only B-L is known as
        # numbers.
        squared = one("Figure 6", f"r2_{metric}")
        point = mark(small, large, "B-L", squared)
        words = f"R² {squared.value:.2f} over 3 tokenizers"
        look = of_tokenizer("B-L", regularised=True)
        series = Series("B-L: Table 2 and README", (point,), look, joined=False)
        charts.append(
            Chart(
                words,
                axis(metric, f"AR probe: {quantity(metric).title}"),
                axis(metric, f"LlamaGen-XL: {quantity(metric).title}"),
                (series,),
            )
        )
    missing = next(row for row in absent() if row.place == "Figure 6")
    return FigureData(
        "probe-agreement",
        "The AR probe ranks tokenizers as a large generator does; only R² and B-L are "
        "published (paper Figure 6)",
        "published",
        tuple(charts),
        (
            "R² of three points leaves one degree of freedom; no line is drawn through one point.",
            *short(5, 12),
        ),
        missing=(f"{missing.what} ({missing.place})",),
    )


@published("encoder-decoder")
def encoder_decoder() -> FigureData:
    """Draw Table 2: parameters in the encoder against parameters in the decoder."""
    rows = tuple(dict.fromkeys((f.tokenizer, f.setting) for f in select("Table 2")))
    looks = (("100 epochs", "epochs=100", Look(ORANGE, "s")), ("200 epochs", "", WITH))

    def series(metric: str) -> list[Series]:
        made = [
            Series(
                name,
                tuple(
                    _asymmetric(tokenizer, setting, metric)
                    for tokenizer, setting in rows
                    if setting == wanted
                ),
                look,
                joined=False,
            )
            for name, wanted, look in looks
        ]
        # At the size of this figure's axis: encoder and decoder as in Table 1, without quantizer
        # and head.
        others = other_s_b("Table 2", metric, sum(part.value for part in _parts("S-B")))
        return [*made, pareto_front(made, None, METRICS[metric].better), *others]

    size = axis("params_transformer")
    panels = (
        ("rfid", "Reconstruction"),
        ("gfid", "Generation"),
        ("probe_accuracy", "AR representation"),
    )
    charts = tuple(Chart(t, size, axis(m), tuple(series(m))) for m, t in panels)
    return FigureData(
        "encoder-decoder",
        "At equal parameters a larger decoder gives better pictures (S-B before B-S), "
        "a larger encoder a better representation (paper Table 2)",
        "published",
        charts,
        (
            "Size: transformer parts of encoder and decoder as in Table 1; the total of B-S is "
            "not published. Epochs of S-L and B-L: Table 9. The front mixes 100 and 200 epochs.",
            *short(2, 12),
        ),
    )


def _asymmetric(tokenizer: str, setting: str, metric: str) -> Mark:
    value = one("Table 2", metric, tokenizer=tokenizer, setting=setting)
    parts = _parts(tokenizer)
    return mark(sum(part.value for part in parts), value, tokenizer, *parts)


def _parts(tokenizer: str) -> list[Fact]:
    """Look up the transformer parameters of encoder and decoder."""
    return [
        one("Table 1", "params_transformer", tokenizer=part, variant="1d")
        # Table 1 lists sizes, S to XXL, which are the same for encoders and decoders.
        for part in tokenizer.split("-")
    ]


@published("semantic-ablations")
def semantic_ablations() -> FigureData:
    """Draw Tables 5, 6 and 7: aligned layer, teacher and weight of the regularisation."""
    studies = (
        ("Table 5", "semantic_layer", "Layer"),
        ("Table 6", "teacher", "Teacher"),
        ("Table 7", "semantic_weight", "Weight"),
    )
    charts = []
    for place, key, words in studies:
        for metric in ("rfid", "gfid", "probe_accuracy"):
            found = select(place, metric=metric)
            # A setting is written as `key=value`.
            names = [fact.setting.partition("=")[2] for fact in found]
            is_number = key != "teacher"
            # Names of teachers have no place of their own and stand in the order of the table.
            places = [float(name) if is_number else float(i) for i, name in enumerate(names)]
            marks = tuple(mark(x, fact) for x, fact in zip(places, found, strict=True))
            look = of_tokenizer(found[0].tokenizer, regularised=True)
            series = Series(found[0].tokenizer, marks, look, joined=is_number)
            texts = names if is_number else [name.partition("-")[0] for name in names]
            ticks = tuple(zip(places, texts, strict=True))
            across, same = axis(f"tokenizer.{key}", ticks=ticks), same_setting(place, metric)
            charts.append(Chart(f"{words} ({place})", across, axis(metric), (series, same)))
    return FigureData(
        "semantic-ablations",
        "Semantic regularisation: aligned layer, teacher and weight (paper Tables 5, 6, 7)",
        "published",
        tuple(charts),
        (*short(2, 3, 10, 12), "Teachers: CLIP (DFN), SigLIP-400M, DINOv2-B."),
    )


@published("generators")
def generators() -> FigureData:
    """Draw Table 10 and the README: larger generators on the same tokenizers."""
    # Millions of parameters as published, training head included (Table 9).
    tokenizers = (("B-L", 622.0), ("XL-XXL", 2896.0))

    def series(metric: str) -> tuple[Series, ...]:
        made = []
        for name, size in tokenizers:
            look = of_tokenizer(name, regularised=True)
            found = _over_generators(name, metric)
            # gFID with and without guidance does not compare.
            alike = [f for f in found if f.setting != "no guidance"]
            free = tuple(mark(f.generator_params_m or 0, f) for f in found if f not in alike)
            marks = tuple(mark(f.generator_params_m or 0, f) for f in alike)
            made.append(Series(f"{name} ({size:.0f} M)", marks, look))
            if free:
                made.append(
                    Series(f"{name}, no guidance", free, look._replace(marker="v"), joined=False)
                )
        return tuple(made)

    ticks = ((111.0, "B\n111 M"), (775.0, "XL\n775 M"), (1400.0, "XXL\n1400 M"))
    panels = (("gfid", "Generation"), ("probe_accuracy", "AR representation"))
    charts = tuple(
        Chart(title, axis("params_generator", ticks=ticks), axis(m), series(m))
        for m, title in panels
    )
    return FigureData(
        "generators",
        "Larger generators on the two largest tokenizers, 300 epochs each "
        "(paper Table 10; LlamaGen-XL: README)",
        "published",
        charts,
        (*short(5, 7, 12), "No line joins gFID with and without guidance."),
        missing=("LlamaGen-L on any GigaTok tokenizer (not published)",),
    )


def _over_generators(tokenizer: str, metric: str) -> list[Fact]:
    found = [
        fact
        for place in ("Table 10", "README")
        for fact in select(place, metric=metric, tokenizer=tokenizer)
        if fact.generator_params_m
    ]
    return sorted(found, key=lambda fact: fact.generator_params_m or 0)


@published("probe-accuracy")
def probe_accuracy() -> FigureData:
    """Draw linear probes of the generator: AR probe (Figure 7) and full training (Table 10)."""
    lines = [
        sized(
            f"AR probe, 50 epochs, {words} regularisation",
            select("Figure 7", metric="probe_accuracy", semantic=on),
            look,
        )
        for words, on, look in (("no", False, WITHOUT), ("with", True, WITH))
    ]
    found = [
        fact
        for fact in select("Table 10", metric="probe_accuracy", generator="LlamaGen-B (1d) 300ep")
        # "B-L (DINO disc)" is B-L with another discriminator: its size would have two marks.
        if "DINO" not in fact.tokenizer
    ]
    full = sized("LlamaGen-B, 300 epochs, with", found, Look(GREEN, "s"))
    lines.append(with_length(full, "tokenizer: {} epochs, not 200"))
    ticks = size_ticks(*SIZES, "XL-XXL")
    chart = _by_size("probe_accuracy", "", lines, ticks)
    return FigureData(
        "probe-accuracy",
        "What the generator learned: linear probe on ImageNet (paper Figure 7, Table 10)",
        "published",
        (chart,),
        (*short(1, 6, 7, 12), _ERRORS),
        missing=("AR probe at 2.9 B (not published)",),
    )


@published("decode-share")
def decode_share() -> FigureData:
    """Draw Table 4: the share of decoding in the time of sampling."""
    series = []
    for decoder in ("B", "L", "XXL"):
        found = select("Table 4", decoder=decoder)
        marks = tuple(mark(fact.generator_params_m or 0, fact) for fact in found)
        look = of_tokenizer(decoder, regularised=True)
        series.append(Series(f"decoder {decoder}", marks, look))
    ticks = ((111.0, "B\n111 M"), (343.0, "L\n343 M"), (1400.0, "XXL\n1400 M"))
    chart = Chart(
        "",
        axis("params_generator", ticks=ticks),
        axis("decode_share"),
        tuple(series),
    )
    return FigureData(
        "decode-share",
        "A large decoder costs little beside a large generator (paper Table 4)",
        "published",
        (chart,),
        ("Share of the time of generation that the tokenizer's decoder takes.",),
    )
