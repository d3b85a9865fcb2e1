from __future__ import annotations

from collections.abc import Sequence

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.charts.labels import Box, Label, place_labels


def test_crowded_labels_are_spread_out() -> None:
    figure = Figure(figsize=(3, 3))
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.subplots()
    at = axes.transData.transform((0.5, 0.5))
    mark = Box(at[0] - 5, at[1] - 5, at[0] + 5, at[1] + 5)
    texts = place_labels(axes, renderer, [(f"S-{i}", [tuple(at)]) for i in range(6)], [mark])
    boxes = [text.get_window_extent(renderer) for text in texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def placed(labels: Sequence[Label], walls: Sequence[Box] = ()) -> dict[str, Box]:
    """Name marks in a frame of 300 × 100 pixels; the boxes of their names."""
    figure = Figure(figsize=(3, 1), dpi=100)
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.add_axes((0, 0, 1, 1))
    marks = [Box(x, y, x, y).grown(4, 4) for _, own in labels for x, y in own]
    texts = place_labels(axes, renderer, labels, [*marks, *walls])
    return {text.get_text(): Box(*text.get_window_extent(renderer).extents) for text in texts}


def test_names_in_a_row_do_not_read_as_one() -> None:
    left, right = (placed([(name, [(150.0, 50.0)])])[name] for name in ("S-B", "S-32x2"))
    # The right one has no room but at the left of its mark, two pixels from the other's name.
    edge = 290.0
    start = edge - (right.x1 - 150) - 2
    walls = [Box(0, 0, 300, 40), Box(0, 60, 300, 100)]
    found = placed([("S-B", [(start - (left.x1 - 150), 50.0)]), ("S-32x2", [(edge, 50.0)])], walls)
    assert list(found) == ["S-B"]


@pytest.mark.parametrize("other", [156.0, 170.0], ids=["nearer", "below its line"])
def test_a_name_that_would_be_read_as_another_marks_is_left_out(other: float) -> None:
    # The only room is at the right, behind the other mark.
    walls = [Box(0, 0, 300, 40), Box(0, 60, 300, 100), Box(0, 0, 142, 100)]
    assert list(placed([("S-S", [(150.0, 50.0)])], walls)) == ["S-S"]
    assert list(placed([("S-S", [(150.0, 50.0)]), ("S-B", [(other, 50.0)])], walls)) == ["S-B"]


def test_a_name_of_several_marks_stands_once_where_there_is_room() -> None:
    found = placed([("S-B", [(50.0, 50.0), (200.0, 50.0)])], [Box(0, 0, 140, 100)])
    assert list(found) == ["S-B"]
    assert found["S-B"].away(200, 50) < 10
