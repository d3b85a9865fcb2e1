"""Ticks of an axis: where they stand, what they say, and which give way where there is no room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from analysis.charts.grammar import Chart, ChartAxis

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.backend_bases import RendererBase
    from matplotlib.text import Text

# As a ratio of the largest to the smallest value: more than two and a half decades.
_DECADES = 300
"""Span of a logarithmic axis above which only powers of ten are marked."""
_MOST_ACROSS, _MOST_UP, _FEWEST = 6, 5, 2
"""Ticks of a linear axis; up to nine, Matplotlib's own choice, would touch in small charts."""
_STEPS = (1, 2, 2.5, 5, 10)
"""Distances of ticks, but for powers of ten; Matplotlib's own list has 1.5, 3, 4, 6 and 8 too."""
_GAP = 4.0
"""Pixels at least between the texts of two ticks."""


def set_ticks(axes: Axes, chart: Chart) -> Axes:
    """Set the ticks of a chart whose limits are final."""
    if not chart.log_x:
        whole = all(mark.x.is_integer() for mark in chart.marks)  # no half training steps
        axes.xaxis.set_major_locator(_linear(_MOST_ACROSS, whole=whole))
    if not chart.log_y:
        axes.yaxis.set_major_locator(_linear(_MOST_UP))
    _mark(axes.xaxis, chart.x, chart.xs, log=chart.log_x)
    _mark(axes.yaxis, chart.y, [mark.y for mark in chart.marks], log=chart.log_y)
    if chart.size_ticks:
        _mark_sizes(axes, chart)
    return axes


def _linear(most: int, *, whole: bool = False) -> MaxNLocator:
    return MaxNLocator(most, steps=_STEPS, integer=whole)


def _mark(one: XAxis | YAxis, axis: ChartAxis, values: Sequence[float], *, log: bool) -> None:
    """Write the figure's own ticks, the values of a setting, or plain numbers on a log axis."""
    is_setting = log or one.axis_name == "x"
    own = axis.powers(values) or (axis.settings(values) if is_setting else [])
    ticks = axis.ticks or [(at, f"{at:.7g}") for at in own]
    if ticks:
        one.set_ticks([at for at, _ in ticks], labels=[text for _, text in ticks])
        one.set_minor_locator(NullLocator())
    elif log:
        # An axis that runs backwards has its interval backwards, too.
        low, high = sorted(one.get_view_interval())
        steps = (1.0,) if high > _DECADES * low else (1.0, 2.0, 5.0)
        one.set_major_locator(LogLocator(subs=steps, numticks=12))
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        one.set_minor_formatter(NullFormatter())


def _mark_sizes(axes: Axes, chart: Chart) -> None:
    """Mark the model sizes themselves."""
    sizes, texts = zip(*chart.size_ticks, strict=True)
    # A logarithmic axis around one value would show ticks of unrelated decades.
    if len(sizes) == 1:
        axes.set_xlim(sizes[0] * 0.9, sizes[0] * 1.1)
    axes.set_xticks(sizes, texts)
    axes.xaxis.set_minor_locator(NullLocator())


def fit_names(axes: Axes, renderer: RendererBase) -> Axes:
    """Shorten the names on an axis where they would touch each other, or slant them."""
    labels = axes.get_xticklabels()
    if not _crowded(axes.xaxis, renderer):
        return axes
    # Names of two lines have details in the second, such as a size; slanted they take an inch.
    if any("\n" in label.get_text() for label in labels):
        axes.set_xticks(axes.get_xticks(), [one.get_text().split("\n")[0] for one in labels])
        return axes
    for label in labels:
        label.set(rotation=40, ha="right", rotation_mode="anchor")
    return axes


def thin(axes: Axes, renderer: RendererBase) -> Axes:
    """Space out the ticks of an axis of numbers; of others hide the texts that would touch."""
    for one, most in ((axes.xaxis, _MOST_ACROSS), (axes.yaxis, _MOST_UP)):
        locator = one.get_major_locator()
        while isinstance(locator, MaxNLocator) and most > _FEWEST and _crowded(one, renderer):
            most -= 1
            locator.set_params(nbins=most)
        for label in _crowded(one, renderer):
            label.set_visible(False)
    return axes


def _crowded(one: XAxis | YAxis, renderer: RendererBase) -> list[Text]:
    """Find the texts of ticks that touch the last one that stays, from the first on."""
    found: list[Text] = []
    taken: list[tuple[float, float]] = []
    for label in texts(one):
        box = label.get_window_extent(renderer)
        ends = (box.x0, box.x1) if one.axis_name == "x" else (box.y0, box.y1)
        if label.get_rotation():
            # Slanted texts are apart where their ends are, by the height of a line.
            scale = float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]
            ends = (box.x1 - float(label.get_fontsize()) * scale, box.x1)
        if any(ends[0] < high + _GAP and low - _GAP < ends[1] for low, high in taken):
            found.append(label)
        else:
            taken.append(ends)
    return found


def texts(one: XAxis | YAxis) -> list[Text]:
    """List the texts of ticks that are drawn: Matplotlib has some beyond the ends of the axis."""
    one.get_majorticklabels()  # brings ticks up to date
    low, high = sorted(one.get_view_interval())
    inside = [tick.label1 for tick in one.get_major_ticks() if low <= tick.get_loc() <= high]
    return [text for text in inside if text.get_visible() and text.get_text()]


def share_x(upper: Axes, lower: Axes) -> bool:
    """Leave the words of x to the axes below, where both show the same ticks; tell whether so."""
    ends = [*upper.get_xlim(), *lower.get_xlim()]
    if upper.xaxis_inverted() != lower.xaxis_inverted():
        return False
    limits = (min(ends), max(ends))
    for axes in (upper, lower):
        axes.set_xlim(limits[::-1] if axes.xaxis_inverted() else limits)
    if not np.array_equal(upper.get_xticks(), lower.get_xticks()):
        return False
    upper.set_xlabel("")
    upper.tick_params(axis="x", labelbottom=False)
    return True
