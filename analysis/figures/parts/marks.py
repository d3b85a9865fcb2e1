"""Marks of published numbers, and those that show the paper's confounds where they matter.

Confounds are numbered as in `paper/data/notes.csv`: 1 training length, 2 three rows of S-B, 3 one
run with two results, 6 sizes with a training-only head, 8 a recipe of another size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import mode
from typing import Any

from analysis.charts.grammar import Mark, Reading, Series, Ticks
from analysis.charts.style import OTHER, Look
from analysis.paper.published import Fact, facts, one, origin, select

SIZES = ("S-S", "S-B", "B-L")
"""Tokenizers of Figures 3 and 7."""
_CROSSES = ("x", "+")
_S_B: dict[str, tuple[str, dict[str, Any]]] = {
    "Table 2": ("S-B in Table 2 (100 epochs)", {"tokenizer": "S-B"}),
    "Figure 7": ("S-B in Figure 7 (200 epochs)", {"tokenizer": "S-B", "semantic": True}),
    "Table 6": ("S-B in Table 6 (epochs not stated)", {"setting": "teacher=DINOv2-B"}),
}
"""Three rows of nominally one tokenizer: what a legend calls them, and how they are found."""
_SAME_S_S = {
    "Table 5": (3.0, "Table 7", "semantic_weight=0.5"),
    "Table 7": (0.5, "Table 5", "semantic_layer=3"),
}
"""Place of an ablation's default on its axis; table and setting that have the same run."""
# Third of the table, after CLIP and SigLIP; places count from 0.
_DINOV2 = 2.0
"""Place of the paper's own teacher among the three of Table 6."""


def mark(x: Fact | float, y: Fact, label: str = "", *more: Fact) -> Mark:
    """Mark a published number over another, or over a size in its own row."""
    across = x.printed if isinstance(x, Fact) else x
    used = (*([x] if isinstance(x, Fact) else []), y, *more)
    # A mark is as reliable as the least reliable number in it.
    worst: Reading = next((f.reading for f in used if f.reading != "printed"), "printed")
    # All facts are origins, those as well that only a label or a size is from.
    return Mark(across, y.printed, tuple(map(origin, used)), worst, label)


def sized(name: str, found: Sequence[Fact], look: Look) -> Series:
    """Make a series of a metric over the size of the tokenizer."""
    marks = [mark(f.params_m, f) for f in found if f.params_m is not None]
    return Series(name, tuple(sorted(marks, key=lambda m: m.x)), look)


def size_ticks(*tokenizers: str) -> Ticks:
    """List published sizes, each without and with its training-only head (confound 6)."""
    ticks = []
    for name in tokenizers:
        total = one("Table 9", "params_total", tokenizer=name).value
        head = one("Released recipes", "params_head", tokenizer=name).value
        ticks.append((total, f"{name}\n{total - head:.0f}+{head:.0f}"))
    return tuple(ticks)


def with_length(line: Series, words: str = "{} ep.") -> Series:
    """Keep the marks, and name those that trained for another length than most of the line.

    Known of 1D tokenizers with semantic regularisation only (Table 9); others stay as they are.
    """
    lengths = [_epochs(shown) for shown in line.marks]
    # Only what deviates is named: 200 epochs at every mark would cover the lines.
    usual = mode(fact.value for fact in lengths if fact) if any(lengths) else None
    marks = []
    for shown, fact in zip(line.marks, lengths, strict=True):
        label = words.format(f"{fact.value:.0f}") if fact and fact.value != usual else ""
        origins = (*shown.origins, origin(fact)) if fact else shown.origins
        marks.append(replace(shown, label=label or shown.label, origins=origins))
    return replace(line, marks=tuple(marks))


def _epochs(shown: Mark) -> Fact | None:
    # The first origin is the number itself or, over another number, that of x: both have the
    # tokenizer.
    (fact,) = (fact for fact in facts() if fact.id == shown.origins[0]["id"])
    if fact.variant != "1d" or not fact.semantic:
        return None
    # "B-L (DINO disc)" is listed as B-L in Table 9.
    return one("Table 9", "epochs", tokenizer=fact.tokenizer.partition(" ")[0])


def other_s_b(here: str, metric: str, x: float) -> list[Series]:
    """Mark the rows of S-B that another table or figure has instead (confound 2)."""
    made = []
    # Crosses, not lines: the rows are of one size and no trend.
    elsewhere = (place for place in _S_B if place != here)
    for place, marker in zip(elsewhere, _CROSSES, strict=True):
        name, wanted = _S_B[place]
        marks = tuple(mark(x, fact) for fact in select(place, metric=metric, **wanted))
        if marks:
            made.append(Series(name, marks, Look(OTHER, marker), joined=False))
    return made


def other_s_b_plane(x: str, y: str) -> list[Series]:
    """Mark the same rows beside Figure 7, two metrics against each other."""
    made = []
    # Names and markers are those of the small charts, so that the legend has each row once.
    for series, place in zip(other_s_b("Figure 7", y, 0.0), ("Table 2", "Table 6"), strict=True):
        across, up = (one(place, metric, **_S_B[place][1]) for metric in (x, y))
        made.append(replace(series, marks=(mark(across, up),)))
    return made


def same_setting(here: str, metric: str) -> Series:
    """Mark what other tables have for a setting of an ablation, named at the mark (2 and 3)."""
    if here == "Table 6":
        x = _DINOV2
        rows = [one(place, metric, **_S_B[place][1]) for place in ("Table 2", "Figure 7")]
    else:
        x, place, setting = _SAME_S_S[here]
        rows = select(place, metric=metric, setting=setting)
    marks = tuple(mark(x, fact, fact.place) for fact in rows)
    return Series("repeated elsewhere", marks, Look(OTHER, _CROSSES[0]), joined=False)


def as_built(line: Series) -> Series:
    """Draw a line from 2D S-S to the size that its released recipe builds (confound 8)."""
    smallest = line.marks[0]
    built = one("Released recipes", "params_total", tokenizer="S-S", variant="2d")
    moved = replace(smallest, x=built.value, origins=(*smallest.origins, origin(built)))
    name = f"2D S-S at the {built.value:g} M that its recipe builds"
    return Series(name, (smallest, moved), line.look._replace(marker="|"))
