"""A figure as files: pictures, the plotted data, the origin of every mark. And what changed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.charts import layout, style
from analysis.charts.drawing import draw
from analysis.charts.grammar import FigureData
from analysis.charts.records import provenance, records, table_of, with_ending, write_data
from gigatok.text.latex import escaped

if TYPE_CHECKING:
    from analysis.charts.style import Venue

FORMATS = ("pdf", "png", "svg")
# Times and versions that Matplotlib writes into files by default, which would make equal figures
# unequal files and `--check` useless.
_METADATA: dict[str, dict[str, Any]] = {
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
    "svg": {"Date": None},
}


def write(
    data: FigureData, folder: Path, formats: Sequence[str], venue: Venue = style.PLAIN
) -> list[Path]:
    """Write `<name>.csv`, `.json` and a picture in each format; equal data give equal files.

    For the page of a venue, `<name>.tex` has the caption, which is then not in the picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / data.name
    # Pictures first: a figure that cannot be drawn leaves no data files.
    figure = draw(data, venue)
    paths = [with_ending(base, form) for form in formats]
    with style.applied(venue):
        for form, path in zip(formats, paths, strict=True):
            figure.savefig(path, dpi=style.DPI, metadata=_METADATA[form])
    if venue.captioned:
        paths.append(with_ending(base, "tex"))
        paths[-1].write_text(caption(data), encoding="utf-8")
    return [*paths, *write_data(base, table_of(records(data)).write_csv(), provenance(data))]


def caption(data: FigureData) -> str:
    r"""Write the caption for LaTeX: what is shown, then the notes, and a label.

    `\includegraphics{NAME}` and `\input{NAME}` in a figure show both.
    """
    parts = [rf"\textbf{{{escaped(data.title)}}}", *map(escaped, layout.caption(data))]
    return f"\\caption{{{' '.join(parts)}}}\n\\label{{fig:{data.name}}}\n"


def pdf_bytes(data: FigureData) -> bytes:
    """Draw a figure as the bytes of a PDF, as `write` does."""
    file = io.BytesIO()
    # Drawn and saved under the same parameters: saving lays out texts again.
    figure = draw(data)
    with style.applied():
        figure.savefig(file, format="pdf", bbox_inches="tight")
    return file.getvalue()


def changes(old: Path, new: Path) -> list[str]:
    """Compare files on disk with the same files made again.

    Returns:
        A sentence each: a file that is missing, lines of text before and after, or a picture
        that is drawn differently.
    """
    found = []
    for made in sorted(new.iterdir()):
        kept = old / made.name
        if not kept.exists():
            found.append(f"{kept}: missing")
        # Bytes, as files are reproducible; only files made again are compared, others are the
        # user's.
        elif kept.read_bytes() != made.read_bytes():
            is_picture = made.suffix.removeprefix(".") in FORMATS
            found += [f"{kept}: drawn differently"] if is_picture else _lines(kept, made)
    return found


_SHOWN = 6


def _lines(kept: Path, made: Path) -> list[str]:
    """List the first lines of a text file that differ: `-` on disk, `+` made again."""
    before, after = (path.read_text(encoding="utf-8").splitlines() for path in (kept, made))
    # The first two lines of a diff are the names of the files.
    steps = list(unified_diff(before, after, n=0, lineterm=""))[2:]
    found = [f"{kept}: {line}" for line in steps if not line.startswith("@@")]
    more = len(found) - _SHOWN
    return [*found[:_SHOWN], *([f"{kept}: {more} more lines differ"] if more > 0 else [])]
