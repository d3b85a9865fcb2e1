"""Curves of guidance searches: the score of every scale that was tried, a curve per trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.charts.grammar import Chart, Mark, Origin, Series
from analysis.charts.style import CYCLE
from analysis.statistics.groups import Group
from analysis.store.runs import STAGE_KEY, STAGE_RUN, load_curves
from gigatok.names import GUIDANCE_PREFIX, PARAM_SEED

SCALE = GUIDANCE_PREFIX + "cfg_scale"
CHOSEN = "chosen scale"
_STAGE = "search_guidance"
_STAR, _STAR_COLOUR = "*", "#222222"


def guidance_series(found: Sequence[Group], y: str, uri: str) -> list[Series]:
    """A curve over the guidance scale for every trial, and a star where its search ended.

    Args:
        found: trials by setting.
        y: what was logged at each scale, such as `guidance/gkid`; bars are its standard error.
        uri: of the store.
    """
    curves, stars = [], []
    for i, group in enumerate(found):
        for row in group.rows:
            marks = _marks(row, y, uri)
            if not marks:
                continue
            label = group.label + (f" seed={row[PARAM_SEED]}" if len(group.rows) > 1 else "")
            curves.append(Series(f"runs {label}", marks, CYCLE[i % len(CYCLE)]))
            best = row.get("best_cfg_scale")
            stars += [_star(mark) for mark in marks if mark.x == best]
    if not stars:
        return curves
    return [*curves, Series(CHOSEN, tuple(stars), _STAR_COLOUR, _STAR, joined=False)]


def bars_of_search(charts: Sequence[Chart]) -> str:
    """What the bars of such curves are, in words for a caption."""
    marks = [mark for chart in charts for series in chart.series for mark in series.marks]
    if all(mark.low is None for mark in marks):
        return "none, no score of the search has an error"
    return "standard error of KID at each scale, one search a curve (FID has no bars)"


def _marks(row: Mapping[str, Any], y: str, uri: str) -> tuple[Mark, ...]:
    """From the smallest scale to the largest; none where the trial was not searched."""
    run_id = row.get(STAGE_RUN + _STAGE)
    if not run_id:
        return ()
    scales, values, errors = (_logged(run_id, name, uri) for name in (SCALE, y, f"{y}_se"))
    origin: Origin = {
        "id": run_id,
        **{k: row[k] for k in ("trial", "git_sha")},
        "stage_key": row.get(STAGE_KEY + _STAGE),
        "metric": y,
    }
    steps = sorted(scales.keys() & values.keys(), key=lambda step: scales[step])
    return tuple(_mark(scales[s], values[s], errors.get(s), origin) for s in steps)


def _logged(run_id: str, name: str, uri: str) -> dict[int, float]:
    curve = load_curves([run_id], name, uri)
    return dict(curve.select("step", "value").iter_rows())


def _mark(scale: float, value: float, error: float | None, origin: Origin) -> Mark:
    bar = (None, None) if error is None else (value - error, value + error)
    return Mark(scale, value, (origin,), "run", "", *bar)


def _star(mark: Mark) -> Mark:
    return Mark(mark.x, mark.y, mark.origins, "run", f"{mark.x:g}")
