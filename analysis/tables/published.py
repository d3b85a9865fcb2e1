"""The tables of the published numbers: the paper's own, its figures as numbers, its peers.

The CSV of a table is its numbers, one a row, with the ids of their facts; the other formats are
laid out as the paper lays them out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from analysis.charts.grammar import axis
from analysis.charts.records import Record, coordinate
from analysis.paper.published import (
    PAPER,
    Fact,
    absent,
    facts,
    leaderboard,
    notes,
    origin,
    select,
    short,
)
from analysis.tables.columns import ABSENT
from analysis.tables.results import ResultTable
from gigatok.names import QUANTITIES, quantity

_RECONSTRUCTION = ("rfid", "lpips", "psnr", "ssim")
_GENERATION = ("gfid", "inception_score", "precision", "recall", "probe_accuracy")
_QUALITY = ("rfid", "lpips", "gfid", "probe_accuracy")
_MARKS = {"printed": "", "digitised": "†", "secondary": "‡"}
_MEANING = {
    "digitised": "† Read off the authors' figures by pixel, not printed.",
    "secondary": "‡ From a copy or a note, not from the work itself.",
}
_HEADS = {
    "params_m": "params (M)",
    "generator_params_m": "generator (M)",
    "num_tokens": "tokens",
    "semantic": "regularised",
    "entropy": "entropy loss",
}
# In the order in which the facts of Table 9 are listed.
_CONFIG = (
    *("params_total", "epochs", "batch_size", "lr_warmup", "entropy_weight", "lr", "min_lr"),
    *("codebook_size", "codebook_dim", "num_latent_tokens", "semantic_layer"),
)
_SHAPE = ("blocks", "heads", "dim")


def paper_table(
    title: str, found: Sequence[Fact], rows: Sequence[str], metrics: Sequence[str], *remarks: str
) -> ResultTable:
    """Lay out facts: a row for each value of `rows`, a column for each metric.

    A fact without generator belongs to every row of its tokenizer. A setting that is not in
    `rows` is written behind the number.
    """
    cells: dict[tuple[Any, ...], dict[str, str]] = {}
    # Facts with a generator first: they make the rows that facts of the tokenizer alone then join.
    for fact in sorted(found, key=lambda fact: bool(fact.generator), reverse=True):
        for key in _rows_of(fact, rows, cells):
            cell = cells.setdefault(key, {})
            # Two values in one cell: `rows` lacks the column that tells them apart, and one would
            # vanish.
            assert fact.metric not in cell, f"two values of {fact.metric} in {key}: {title}"
            cell[fact.metric] = _cell(fact, aside="setting" not in rows)
    # The order of the file is the paper's; the first fact of a row decides its place.
    # Reversed, because of equal keys in a dict the last one wins.
    order = {_key(fact, rows): i for i, fact in reversed(list(enumerate(found)))}
    keys = sorted(cells, key=order.__getitem__)
    heads = (_HEADS.get(metric) or quantity(metric).heading for metric in metrics)
    return ResultTable(
        title=title,
        head=(*(_HEADS.get(row, row) for row in rows), *heads),
        rows=tuple(
            (*map(_text, key), *(cells[key].get(m, ABSENT) for m in metrics)) for key in keys
        ),
        # `type`, not `isinstance`: yes and no are bool, which is a subclass of int.
        numeric=(*(type(value) in (int, float) for value in keys[0]), *([True] * len(metrics))),
        notes=(*remarks, *_remarks(found)),
        records=tuple(map(_record, found)),
        origins=tuple(map(origin, found)),
    )


def _rows_of(
    fact: Fact, rows: Sequence[str], known: dict[tuple[Any, ...], Any]
) -> list[tuple[Any, ...]]:
    key = _key(fact, rows)
    if fact.generator or "generator" not in rows:
        return [key]
    # Columns of the generator are left out of the comparison: the tokenizer's facts have none.
    own = [i for i, row in enumerate(rows) if not row.startswith("generator")]
    # rFID belongs to the tokenizer: it stands in the row of each of its generators.
    same = [other for other in known if all(other[i] == key[i] for i in own)]
    # A tokenizer without any generator in the table keeps a row of its own.
    return same or [key]


def _key(fact: Fact, rows: Sequence[str]) -> tuple[Any, ...]:
    return tuple(getattr(fact, row) for row in rows)


def _text(value: Any) -> str:
    # `in` compares by equality: 0 and False are neither and are printed.
    if value in (None, ""):
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(fact: Fact, *, aside: bool) -> str:
    """Print a value as it was published: at least the metric's decimals, and all that it has."""
    metric = quantity(fact.metric)
    digits = metric.digits if fact.metric in QUANTITIES else 0
    # Padding with zeros is harmless, rounding is not: the table must print what was published.
    exact = repr(fact.printed).removesuffix(".0")
    padded = f"{fact.printed:.{digits}f}"
    text = padded if float(padded) == fact.printed else exact
    words = f" ({fact.setting})" if aside and fact.setting else ""
    return text + _MARKS[fact.reading] + words


def _remarks(found: Sequence[Fact]) -> tuple[str, ...]:
    """Say what the marks behind values mean, and where all of them are from."""
    readings = {fact.reading for fact in found}
    meanings = (text for reading, text in _MEANING.items() if reading in readings)
    cited = "; ".join(dict.fromkeys(fact.citation for fact in found))
    return (*meanings, f"Sources: {cited}.")


def _record(fact: Fact) -> Record:
    words = (fact.tokenizer, fact.variant, fact.generator, fact.setting)
    return {
        "chart": fact.place,
        "series": fact.work,
        "label": " ".join(filter(None, words)),
        "mark": "single",
        **coordinate("y", axis(fact.metric), fact.printed, None, ()),
        "n": 1,
        "reading": fact.reading,
        "sources": fact.id,
    }


def _numbered(number: int) -> ResultTable:
    """Lay out one of Tables 1 to 10 of the paper."""
    title, rows, metrics, confounds = _PAPER[number]
    place = f"Table {number}"
    found = select(place)
    return paper_table(f"Paper {place}: {title}", found, rows, metrics, *short(*confounds))


_PAPER: dict[int, tuple[str, Sequence[str], Sequence[str], Sequence[int]]] = {
    1: ("transformer parts", ("variant", "tokenizer"), ("params_transformer", *_SHAPE), ()),
    2: (
        "encoder against decoder, AR probe",
        ("tokenizer", "params_m", "setting", "generator"),
        _QUALITY,
        (2, 12),
    ),
    3: (
        "systems on ImageNet at 256 px (rows of others; GigaTok's are in Table 10)",
        ("tokenizer", "quantizer", "num_tokens", "params_m", "generator", "generator_params_m"),
        ("rfid", "gfid", "probe_accuracy"),
        (5, 12),
    ),
    4: (
        "decoding's share of the time of generation (%)",
        ("decoder", "generator", "generator_params_m"),
        ("decode_share",),
        (),
    ),
    5: ("aligned decoder layer", ("tokenizer", "setting", "generator"), _QUALITY, (3, 12)),
    6: ("teacher", ("tokenizer", "setting", "generator"), _QUALITY, (2, 12)),
    7: ("semantic weight", ("tokenizer", "setting", "generator"), _QUALITY, (3, 10, 12)),
    8: ("generators", ("generator", "generator_params_m"), _SHAPE, ()),
    9: ("training configuration of tokenizers", ("tokenizer",), _CONFIG, (1, 6)),
    10: (
        "full results",
        ("tokenizer", "params_m", "generator", "generator_params_m"),
        (*_RECONSTRUCTION, *_GENERATION),
        (1, 5, 6, 7, 12),
    ),
}


def _figure(number: int) -> ResultTable:
    """Tabulate the numbers behind a figure of the paper."""
    rows, metrics, confounds = _FIGURES[number]
    found = select(f"Figure {number}")
    if "step" in rows:
        # Facts without a step are means over the last iterations and stand below their curve.
        found.sort(key=lambda fact: (bool(fact.entropy), fact.step or math.inf))
    title = f"Paper Figure {number}: its numbers"
    return paper_table(title, found, rows, metrics, *short(*confounds))


_LINES = ("tokenizer", "variant", "params_m", "semantic")
_FIGURES: dict[int, tuple[Sequence[str], Sequence[str], Sequence[int]]] = {
    3: (_LINES, ("rfid", "ar_val_loss", "gfid"), (6, 12)),
    5: (("tokenizer", "entropy", "setting", "step"), ("perceptual_loss", "codebook_usage"), (12,)),
    6: (("tokenizer", "generator", "setting"), ("r2_gfid", "r2_probe_accuracy"), (5, 12)),
    7: (_LINES, ("rfid", "lpips", "ar_val_loss", "gfid", "probe_accuracy"), (1, 2, 6, 9, 12)),
    9: (_LINES, ("rfid", "gfid", "probe_accuracy"), (1, 4, 6, 8, 12)),
}


def _readme() -> ResultTable:
    rows = ("tokenizer", "params_m", "generator", "generator_params_m", "setting")
    metrics = ("lpips", "gfid", "probe_accuracy")
    title = "README of the authors' repository: what the paper's tables do not have"
    return paper_table(title, select("README"), rows, metrics, *short(5, 12))


def _long(title: str, found: Sequence[Fact]) -> ResultTable:
    """List one number a row."""
    said = ("work", "place", "tokenizer", "variant", "generator", "setting", "metric")
    head = (*said, "value", "unit")
    rows = tuple(
        (*(_text(getattr(f, name)) for name in said), _cell(f, aside=False), _text(f.unit))
        for f in found
    )
    numeric = tuple(name == "value" for name in head)
    records, origins = tuple(map(_record, found)), tuple(map(origin, found))
    return ResultTable(title, head, rows, numeric, _remarks(found), records, origins)


def _leaderboard() -> ResultTable:
    title = "A public leaderboard's rows of the paper: its values, not the paper's"
    return _listed(title, [row.model_dump() for row in leaderboard()], *short(11))


def _confounds() -> ResultTable:
    rows = [{"number": note.id, "confound": note.text} for note in notes().values()]
    return _listed("What confounds the published numbers", rows)


def _listed(title: str, rows: Sequence[dict[str, Any]], *remarks: str) -> ResultTable:
    head = tuple(rows[0])
    cells = tuple(tuple(map(_text, row.values())) for row in rows)
    numeric = tuple(name in ("number", "value", "rank") for name in head)
    return ResultTable(title, head, cells, numeric, remarks)


TABLES: dict[str, Callable[[], ResultTable]] = {
    # `partial` binds the number; a lambda in the comprehension would see the last one.
    **{f"table{n}": partial(_numbered, n) for n in _PAPER},
    **{f"figure{n}": partial(_figure, n) for n in _FIGURES},
    "readme": _readme,
    "text": lambda: _long("Numbers in the paper's text", select("Sections 3.1, 4.2, B")),
    "released": lambda: _long(
        "What the released recipes build, counted", select("Released recipes")
    ),
    "peers": lambda: _long("What peers report", [f for f in facts() if f.work != PAPER]),
    "leaderboard": _leaderboard,
    "absent": lambda: _listed(
        "What could not be found; nothing stands in for it", [r.model_dump() for r in absent()]
    ),
    "confounds": _confounds,
}
"""Tables by name."""
