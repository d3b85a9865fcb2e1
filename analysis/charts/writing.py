"""A `Plate` as files: pictures, the plotted data, the origin of every mark. And what changed."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.charts import style
from analysis.charts.drawing import draw
from analysis.charts.grammar import NO_VALUE, Chart, Mark, Plate, Series

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.charts.style import Venue

FORMATS = ("pdf", "png", "svg")
_METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
    "svg": {"Date": None},
}
_COLUMNS = (
    *("chart", "series", "label", "x_key", "x", "y_key", "y", "y_low", "y_high"),
    *("reading", "sources"),
)


def stem(plate: Plate) -> str:
    """File name: published figures have the bare name."""
    return plate.name if plate.source == "published" else f"{plate.name}-{plate.source}"


def write(
    plate: Plate,
    folder: Path,
    formats: Sequence[str],
    venue: Venue = style.PLAIN,
    *,
    width: float | None = None,
) -> list[Path]:
    """Write `<stem>.csv`, `.json` and a picture in each format; equal data give equal files."""
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / stem(plate)
    paths = save(draw(plate, venue, width=width), base, formats, venue)
    table, origins = with_ending(base, "csv"), with_ending(base, "json")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_rows(plate))
    text = json.dumps(provenance(plate), indent=1, ensure_ascii=False)
    origins.write_text(text + "\n", encoding="utf-8")
    return [*paths, table, origins]


def with_ending(base: Path, ending: str) -> Path:
    """File of a figure; its name may hold dots, so `with_suffix` would cut it."""
    return base.with_name(f"{base.name}.{ending}")


def save(
    figure: Figure, base: Path, formats: Sequence[str], venue: Venue = style.PLAIN
) -> list[Path]:
    """Write a figure in some formats, without the time of writing."""
    paths = [with_ending(base, form) for form in formats]
    with style.applied(venue):
        for form, path in zip(formats, paths, strict=True):
            figure.savefig(path, dpi=style.DPI, metadata=_METADATA[form])
    return paths


def provenance(plate: Plate) -> dict[str, Any]:
    """Every mark with its origins: a published row, or a run with its config key and code."""
    return {
        "figure": plate.name,
        "source": plate.source,
        "title": plate.title,
        "notes": list(plate.notes),
        "missing": list(plate.missing),
        "charts": [
            {
                "title": chart.title,
                "x": chart.x.key,
                "y": chart.y.key,
                "marks": [_mark(series, mark) for series in chart.series for mark in series.marks],
            }
            for chart in plate.charts
        ],
        "pictures": [
            {"title": grid.title, "origins": [dict(origin) for _, origin, _ in grid.columns]}
            for grid in plate.grids
        ],
    }


def _mark(series: Series, mark: Mark) -> dict[str, Any]:
    found = {"series": series.name, "label": mark.label, "x": mark.x, "y": _value(mark)}
    return found | {"reading": mark.reading, "sources": [dict(o) for o in mark.origins]}


def _value(mark: Mark) -> float | None:
    return None if mark.reading == NO_VALUE else mark.y


def _rows(plate: Plate) -> Iterator[dict[str, Any]]:
    for chart in plate.charts:
        for series in chart.series:
            for mark in series.marks:
                yield _row(chart, series, mark)


def _row(chart: Chart, series: Series, mark: Mark) -> dict[str, Any]:
    values = (chart.title, series.name, mark.label, chart.x.key, mark.x, chart.y.key, _value(mark))
    sources = " ".join(dict.fromkeys(str(origin["id"]) for origin in mark.origins))
    last = (mark.low, mark.high, mark.reading, sources)
    return dict(zip(_COLUMNS, (*values, *last), strict=True))


def changes(old: Path, new: Path) -> list[str]:
    """What differs between files on disk and the same files made again.

    Returns:
        A sentence each: a file that is missing, lines of text before and after, or a picture
        that is drawn differently.
    """
    found = []
    for made in sorted(new.iterdir()):
        kept = old / made.name
        if not kept.exists():
            found.append(f"{kept}: missing")
        elif kept.read_bytes() != made.read_bytes():
            is_picture = made.suffix.removeprefix(".") in FORMATS
            found += [f"{kept}: drawn differently"] if is_picture else _lines(kept, made)
    return found


_SHOWN = 6


def _lines(kept: Path, made: Path) -> list[str]:
    """The first lines of a text file that differ: `-` on disk, `+` made again."""
    before, after = (path.read_text(encoding="utf-8").splitlines() for path in (kept, made))
    steps = list(unified_diff(before, after, n=0, lineterm=""))[2:]
    found = [f"{kept}: {line}" for line in steps if not line.startswith("@@")]
    more = len(found) - _SHOWN
    return [*found[:_SHOWN], *([f"{kept}: {more} more lines differ"] if more > 0 else [])]
