"""Placing the names of points so that they cover neither points nor lines nor each other.

Nor may a name be read as that of another mark: its line, if it has one, passes by all others.

Greedy and deterministic: each label takes the nearest candidate place that is free. A label
without a free place is left out, as one on top of another could be read as neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from analysis.charts.grammar import Remark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.text import Text

# Degrees, counter-clockwise from the right, in order of preference: a name beside its mark reads
# best, then above and below, then the corners.
_ANGLES = (0, 180, 90, 270, 45, 135, 315, 225, 22, 158, 338, 202, 67, 113, 293, 247)
_DISTANCES = (5.0, 9.0, 14.0, 20.0, 27.0, 35.0)
"""Points between a mark and the nearest edge of its label, in order of preference."""
_LEADER_FROM = 14.0
_APART, _CLEAR = 3.0, 3.5
"""Points between two names in a row, which would read as one; and between a line and a mark."""
_PIXELS_OF_LINE = 6.0
"""Pixels between the boxes that keep a line free: fewer than a letter is wide."""
_FARTHEST = 0.2
"""Way of a remark from its place, in diagonals of the frame: farther off it is of other marks."""
_PLACES = 20
"""Places of a remark that are tried in each direction."""
_OFF_AXIS = 4.0
"""Pixels between a label and the axes at the left and below."""
_TOUCH = 0.01
"""Part of a label that may be covered: rounding of pixels, no letter."""
_TEXT = "#222222"


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlap(self, other: Box) -> float:
        """Compute the area shared with another box, in square pixels."""
        width = min(self.x1, other.x1) - max(self.x0, other.x0)
        height = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(width, 0.0) * max(height, 0.0)

    def grown(self, across: float, up: float) -> Box:
        """Add room at both sides, above and below, in pixels."""
        return Box(self.x0 - across, self.y0 - up, self.x1 + across, self.y1 + up)

    def away(self, x: float, y: float) -> float:
        """Measure the way from a point to the nearest edge, in pixels; 0 inside."""
        return math.hypot(max(self.x0 - x, 0.0, x - self.x1), max(self.y0 - y, 0.0, y - self.y1))

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)


Pixels = tuple[float, float]
Label = tuple[str, Sequence[Pixels]]
"""Text, and the pixel coordinates of the marks that it names: it stands at one of them."""


def place_labels(
    axes: Axes,
    renderer: RendererBase,
    labels: Sequence[Label],
    marks: Sequence[Box],
    size: float = 8.0,
) -> list[Text]:
    """Name the marks of an axes whose position is final.

    Args:
        axes: its limits and its place on the page must not change afterwards.
        renderer: measures the texts.
        labels: each text, and the marks that it names, the best place first.
        marks: pixel boxes to keep free: markers, error bars, lines.
        size: font size in points.
    """
    # A label placed in data coordinates must not move the limits it was placed by.
    axes.autoscale(False)
    frame = axes.get_window_extent(renderer)
    # A letter on the axis itself would be struck through.
    inside = Box(frame.x0 + _OFF_AXIS, frame.y0 + _OFF_AXIS, frame.x1, frame.y1)
    scale = float(renderer.points_to_pixels(1.0))  # type: ignore[arg-type]
    to_data = axes.transData.inverted()
    # Labels and their lines join the marks as they are placed: the next one avoids them as well.
    taken = list(marks)
    named: list[Box] = []
    made = []
    for text, own in labels:
        label = axes.text(0, 0, text, fontsize=size, color=_TEXT, zorder=4, va="bottom")
        extent = label.get_window_extent(renderer)
        others = [at for _, marks in labels for at in marks if at not in own]
        # The first free one, so that equal data give equal pictures.
        place = next(
            (
                (distance, at, box)
                for distance, at, box in _candidates(own, extent.width, extent.height, scale)
                if _is_free(box, taken, inside)
                and _is_own(box, at, others, named, scale, leads=distance >= _LEADER_FROM)
            ),
            None,
        )
        if place is None:
            label.remove()
            continue
        distance, at, box = place
        label.set_position(tuple(to_data.transform((box.x0, box.y0))))
        # So far away the eye needs a line to find the mark.
        if distance >= _LEADER_FROM:
            _draw_leader(axes, at, box)
            taken += along(at, _end(box, at))
        named.append(box)
        taken.append(box.grown(_APART * scale, 0))
        made.append(label)
    return made


def place_remark(
    axes: Axes,
    renderer: RendererBase,
    remark: Remark,
    at: tuple[float, float],
    taken: Sequence[Box],
    size: float,
) -> list[Box]:
    """Write a remark at the free place nearest to its own; nothing where none is near.

    Args:
        axes: its limits and its place on the page must not change afterwards.
        renderer: measures the text.
        remark: the words; they begin at its coordinates.
        at: these coordinates in pixels.
        taken: pixel boxes to keep free.
        size: font size in points.

    Returns:
        The box that it takes, if any.
    """
    text = axes.text(0, 0, remark.text, color=remark.colour, size=size, weight="bold", va="bottom")
    extent = text.get_window_extent(renderer)
    width, height = extent.width, extent.height
    inside = Box(*axes.get_window_extent(renderer).extents)
    own = (at[0], at[1] - height / 2)
    near = _FARTHEST * math.hypot(inside.x1 - inside.x0, inside.y1 - inside.y0)
    places = [c for c in _corners(inside, width, height) if math.dist(c, own) <= near]
    for left, bottom in sorted(places, key=lambda c: math.dist(c, own)):
        box = Box(left, bottom, left + width, bottom + height)
        if _is_free(box, taken, inside):
            text.set_position(tuple(axes.transData.inverted().transform((left, bottom))))
            return [box]
    text.remove()
    return []


def _corners(inside: Box, width: float, height: float) -> Iterator[tuple[float, float]]:
    """List places of the lower left corner of a text all over a frame."""
    across, up = inside.x1 - inside.x0 - width, inside.y1 - inside.y0 - height
    for row in range(_PLACES + 1):
        for column in range(_PLACES + 1):
            yield inside.x0 + across * column / _PLACES, inside.y0 + up * row / _PLACES


def along(start: Pixels, end: Pixels) -> list[Box]:
    """List small pixel boxes along a line, for labels to keep free."""
    # One box around a whole line would forbid the empty triangle on either side of a slanted one.
    count = 1 + int(math.dist(start, end) / _PIXELS_OF_LINE)
    (x0, y0), (x1, y1) = start, end
    parts = [step / count for step in range(count + 1)]
    points = [(x0 + part * (x1 - x0), y0 + part * (y1 - y0)) for part in parts]
    return [Box(x, y, x, y).grown(2, 2) for x, y in points]


def _end(box: Box, start: Pixels) -> Pixels:
    """Find the point of a label that is nearest to its mark."""
    return (min(max(start[0], box.x0), box.x1), min(max(start[1], box.y0), box.y1))


def _is_own(
    box: Box,
    mark: Pixels,
    others: Sequence[Pixels],
    named: Sequence[Box],
    scale: float,
    *,
    leads: bool,
) -> bool:
    """Tell whether a label would be read as its mark's, and not as that of another one."""
    if not leads:
        return all(box.away(*mark) <= box.away(*other) for other in others)
    # A line that runs over another mark or name seems to come from there.
    line = along(mark, _end(box, mark))
    near = _CLEAR * scale
    # What stands on the mark itself is passed by no line.
    marks = [Box(*at, *at).grown(near, near) for at in others if math.dist(at, mark) > near]
    return not any(part.overlap(other) for part in line for other in [*marks, *named])


def _draw_leader(axes: Axes, start: Pixels, box: Box) -> None:
    """Draw a thin line from a mark to the nearest point of its label."""
    end = _end(box, start)
    (x0, y0), (x1, y1) = axes.transData.inverted().transform([start, end])
    axes.plot([x0, x1], [y0, y1], color="#777777", linewidth=0.5, zorder=1.5)


def _candidates(
    own: Sequence[Pixels], width: float, height: float, scale: float
) -> Iterator[tuple[float, Pixels, Box]]:
    """List boxes around marks, nearest first, each with its distance in points and its mark."""
    for distance, (x, y), angle in product(_DISTANCES, own, _ANGLES):
        # Half the label's own size is added, so that its edge, not its centre, has the
        # distance.
        dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        centre_x = x + dx * (distance * scale + width / 2)
        centre_y = y + dy * (distance * scale + height / 2)
        left, bottom = centre_x - width / 2, centre_y - height / 2
        yield distance, (x, y), Box(left, bottom, left + width, bottom + height)


def _is_free(box: Box, taken: Sequence[Box], inside: Box) -> bool:
    # Outside the frame a name would be read as that of the neighbouring chart.
    outside = box.area - box.overlap(inside)
    return outside + sum(box.overlap(other) for other in taken) <= _TOUCH * box.area
