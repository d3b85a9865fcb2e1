"""The figures of the paper's own numbers: one function each.

Every mark carries the rows of `paper/data/facts.csv` that it is drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.charts.grammar import TITLES, Chart, FigureData, Mark, Remark, Series, Ticks, axis
from analysis.charts.style import GREEN, OF_VARIANT, ORANGE, WITH, WITHOUT, Look, of_tokenizer
from analysis.figures.parts.derived import pareto_front
from analysis.figures.parts.marks import (
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
from analysis.figures.parts.registry import published
from analysis.paper.published import Fact, absent, one, select, short
from gigatok.names import METRICS, quantity

_ERRORS = "Read to within .002 (FID, loss), .0001 (LPIPS), .05 points (accuracy)."
_QUALITY = ("rfid", "gfid", "probe_accuracy")


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
    unstated = Remark(235, 1.5, "training length\nnot stated", WITHOUT.colour)
    charts = []
    for metric, words in panels:
        found = select("Figure 3", metric=metric)
        lines = [sized("without semantic regularisation", found, WITHOUT)]
        remarks = (unstated,) if metric == "rfid" else ()
        charts.append(_by_size(metric, words, lines, size_ticks(*SIZES), remarks=remarks))
    title = "The dilemma: larger tokenizers reconstruct better and generate worse (paper Figure 3)"
    notes = (*short(1, 6, 12), _ERRORS)
    return FigureData("dilemma", title, "published", tuple(charts), notes)


@published("cure", "figure7")
def cure() -> FigureData:
    """Make Figure 7: the dilemma without, and its cure with semantic regularisation."""
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

    charts = [_by_size(m, TITLES[m], lines(m), size_ticks(*SIZES)) for m in TITLES]
    plane = _trade([*(_plane(*of) for of in looks), *other_s_b_plane("rfid", "gfid")])
    title = (
        "A larger tokenizer reconstructs better but generates worse, "
        "unless semantic regularisation keeps its codes simple (paper Figure 7)"
    )
    notes = (*short(1, 2, 6, 9, 12), _ERRORS)
    # The plane first, as it is the big one and takes the first four cells.
    return FigureData("cure", title, "published", (plane, *charts), notes)


def _plane(name: str, semantic: bool, look: Look) -> Series:
    """Join reconstruction and generation of each size, smallest first."""
    marks = []
    # In the order of size, which the arrows follow.
    for tokenizer in SIZES:
        rfid, gfid = (
            one("Figure 7", metric, semantic=semantic, tokenizer=tokenizer)
            for metric in ("rfid", "gfid")
        )
        marks.append(mark(rfid, gfid, *_length(tokenizer, semantic=semantic)))
    return Series(name, tuple(marks), look, arrows=True)


def _length(tokenizer: str, *, semantic: bool) -> tuple[Any, ...]:
    """Label a size with its training length where that is known, and return the fact of it."""
    label = f"{tokenizer} {one('Table 9', 'params_total', tokenizer=tokenizer).value:.0f} M"
    if not semantic:
        return (label,)
    # Of the regularised checkpoints alone: the schedule without is not stated (confound 1).
    epochs = one("Table 9", "epochs", tokenizer=tokenizer, variant="1d")
    return f"{label}, {epochs.value:.0f} ep.", epochs


def _trade(lines: Sequence[Series]) -> Chart:
    dilemma = "dilemma: larger ones\nreconstruct better,\ngenerate worse"
    cure = "cure: larger ones\ndo both better"
    # Places in rFID and gFID, on the side of the plane where each curve runs.
    remarks = (Remark(1.6, 11.1, dilemma, WITHOUT.colour), Remark(1.6, 5.0, cure, WITH.colour))
    x, y = axis("rfid", "reconstruction: rFID"), axis("gfid", "generation: gFID")
    title = "What a larger tokenizer buys"
    return Chart(title, x, y, tuple(lines), better_up=True, big=True, remarks=remarks)


@published("1d-2d", "figure9")
def one_d_two_d() -> FigureData:
    """Make Figure 9: 1D against 2D tokenizers, all regularised."""
    names = {"1d": "1D (200 epochs unless marked)", "2d": "2D (epochs not stated)"}
    # Round numbers instead of `size_ticks`: 1D and 2D tokenizers of one name differ in size.
    ticks = tuple((size, f"{size:g}") for size in (100.0, 200.0, 400.0, 600.0))

    def lines(metric: str) -> list[Series]:
        one_d, two_d = (
            sized(name, select("Figure 9", metric=metric, variant=variant), OF_VARIANT[variant])
            for variant, name in names.items()
        )
        return [with_length(one_d), as_built(two_d), two_d]  # the line ends below its diamond

    charts = tuple(_by_size(m, TITLES[m], lines(m), ticks) for m in _QUALITY)
    title = (
        "1D tokenizers reconstruct better at every size; 2D ones generate better while small "
        "(paper Figure 9: S-S, S-B and B-L of each kind)"
    )
    return FigureData("1d-2d", title, "published", charts, (*short(1, 4, 8, 12), _ERRORS))


@published("entropy", "figure5")
def entropy() -> FigureData:
    """Make Figure 5: XL-XXL with and without entropy loss, over training."""
    looks = (("without entropy loss", False, WITHOUT), ("with it", True, WITH))

    def line(metric: str, name: str, entropy: bool, look: Look) -> Series:
        found = select("Figure 5", metric=metric, entropy=entropy)
        # Means over the last iterations are facts of Figure 5 as well, and belong to no step.
        marks = [mark(float(fact.step), fact) for fact in found if fact.step is not None]
        return Series(name, tuple(marks), look)

    panels = {"codebook_usage": "Codebook usage", "perceptual_loss": "Perceptual loss"}
    charts = tuple(
        Chart(words, axis("step"), axis(metric), tuple(line(metric, *of) for of in looks))
        for metric, words in panels.items()
    )
    title = "At 2.9 B (XL-XXL) training collapses without entropy loss (paper Figure 5)"
    note = (
        "Points between which lines are drawn are medians of noisy curves, read to ±2 points "
        "of usage and ±.02 of loss."
    )
    return FigureData("entropy", title, "published", charts, (note, *short(12)))


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
        look = of_tokenizer("B-L", regularised=True)
        series = Series("B-L: Table 2 and README", (point,), look, joined=False)
        probe, full = (
            axis(metric, f"{generator}: {quantity(metric).title}")
            for generator in ("AR probe", "LlamaGen-XL")
        )
        charts.append(Chart(f"R² {squared.value:.2f} over 3 tokenizers", probe, full, (series,)))
    title = (
        "The AR probe ranks tokenizers as a large generator does; only R² and B-L are "
        "published (paper Figure 6)"
    )
    note = "R² of three points leaves one degree of freedom; no line is drawn through one point."
    gone = next(row for row in absent() if row.place == "Figure 6")
    missing = (f"{gone.what} ({gone.place})",)
    notes = (note, *short(5, 12))
    return FigureData("probe-agreement", title, "published", tuple(charts), notes, (), missing)


@published("encoder-decoder")
def encoder_decoder() -> FigureData:
    """Draw Table 2: parameters in the encoder against parameters in the decoder."""
    looks = (("100 epochs", "epochs=100", Look(ORANGE, "s")), ("200 epochs", "", WITH))

    def series(metric: str) -> tuple[Series, ...]:
        made = [
            Series(
                name,
                tuple(map(_asymmetric, select("Table 2", metric=metric, setting=setting))),
                look,
                joined=False,
            )
            for name, setting, look in looks
        ]
        # At the size of this figure's axis: encoder and decoder as in Table 1, without quantizer
        # and head.
        others = other_s_b("Table 2", metric, sum(part.value for part in _parts("S-B")))
        return (*made, pareto_front(made, None, METRICS[metric].better), *others)

    size = axis("params_transformer")
    charts = tuple(Chart(TITLES[m], size, axis(m), series(m)) for m in _QUALITY)
    title = (
        "At equal parameters a larger decoder gives better pictures (S-B before B-S), "
        "a larger encoder a better representation (paper Table 2)"
    )
    note = (
        "Size: transformer parts of encoder and decoder as in Table 1; the total of B-S is "
        "not published. Epochs of S-L and B-L: Table 9. The front mixes 100 and 200 epochs."
    )
    return FigureData("encoder-decoder", title, "published", charts, (note, *short(2, 12)))


def _asymmetric(fact: Fact) -> Mark:
    parts = _parts(fact.tokenizer)
    return mark(sum(part.value for part in parts), fact, fact.tokenizer, *parts)


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
        for metric in _QUALITY:
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
    title = "Semantic regularisation: aligned layer, teacher and weight (paper Tables 5, 6, 7)"
    notes = (*short(2, 3, 10, 12), "Teachers: CLIP (DFN), SigLIP-400M, DINOv2-B.")
    return FigureData("semantic-ablations", title, "published", tuple(charts), notes)


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
                bare = look._replace(marker="v")
                made.append(Series(f"{name}, no guidance", free, bare, joined=False))
        return tuple(made)

    ticks = ((111.0, "B\n111 M"), (775.0, "XL\n775 M"), (1400.0, "XXL\n1400 M"))
    size = axis("params_generator", ticks=ticks)
    charts = tuple(
        Chart(TITLES[metric], size, axis(metric), series(metric))
        for metric in ("gfid", "probe_accuracy")
    )
    title = (
        "Larger generators on the two largest tokenizers, 300 epochs each "
        "(paper Table 10; LlamaGen-XL: README)"
    )
    notes = (*short(5, 7, 12), "No line joins gFID with and without guidance.")
    missing = ("LlamaGen-L on any GigaTok tokenizer (not published)",)
    return FigureData("generators", title, "published", charts, notes, (), missing)


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
    title = "What the generator learned: linear probe on ImageNet (paper Figure 7, Table 10)"
    notes, missing = (*short(1, 6, 7, 12), _ERRORS), ("AR probe at 2.9 B (not published)",)
    return FigureData("probe-accuracy", title, "published", (chart,), notes, (), missing)


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
    size = axis("params_generator", ticks=ticks)
    chart = Chart("", size, axis("decode_share"), tuple(series))
    title = "A large decoder costs little beside a large generator (paper Table 4)"
    note = "Share of the time of generation that the tokenizer's decoder takes."
    return FigureData("decode-share", title, "published", (chart,), (note,))
