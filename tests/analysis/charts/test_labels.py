from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.charts.labels import Box, place_labels


def test_crowded_labels_are_spread_out() -> None:
    figure = Figure(figsize=(3, 3))
    renderer = FigureCanvasAgg(figure).get_renderer()
    axes = figure.subplots()
    at = axes.transData.transform((0.5, 0.5))
    mark = Box(at[0] - 5, at[1] - 5, at[0] + 5, at[1] + 5)
    texts = place_labels(axes, renderer, [(f"S-{i}", tuple(at)) for i in range(6)], [mark])
    boxes = [text.get_window_extent(renderer) for text in texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
