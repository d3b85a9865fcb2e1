"""Settings that no other beats in all of some results at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.statistics.axes import place
from analysis.statistics.estimates import SeedEstimate, estimate
from analysis.statistics.groups import Group, choose_interval, groups, require_one_way
from analysis.store.requests import RequestError
from gigatok.names import METRICS, QUANTITIES, quantity


@dataclass(frozen=True)
class ParetoPoint:
    """Setting among those that are compared.

    Attributes:
        estimates: of each result, over the seeds that have all of them.
        on_front: whether no other is as good in all and better in one, by the means.
    """

    group: Group
    estimates: tuple[SeedEstimate, ...]
    on_front: bool


def pareto(runs: pl.DataFrame, over: Sequence[str]) -> list[ParetoPoint]:
    """Find the settings on the front of two or more results, sizes or numeric settings.

    Args:
        runs: what `load_runs` returned.
        over: metrics, sizes or numeric columns; less is better of those without a direction,
            since they are what is paid.

    Raises:
        RequestError: fewer than two or an unknown one, no setting has all, or one was measured in
            several ways.
    """
    _check(runs, over)
    measures = [name for name in over if name in METRICS]
    found = [group.with_all(*measures) if measures else group for group in groups(runs)]
    found = [group for group in found if group.rows and _has_all(group, over)]
    if not found:
        raise RequestError(f"no setting has all of {', '.join(over)}")
    for name in measures:
        require_one_way(found, name, "front")
    kind = choose_interval(found)
    points = []
    for group in found:
        of_metrics = {name: group.estimate(name, kind) for name in measures}
        others = {name: place(group, name) for name in over if name not in METRICS}
        exact = {
            name: estimate([value], "none") for name, value in others.items() if value is not None
        }
        both = of_metrics | exact
        points.append(tuple(e for name in over if (e := both[name]) is not None))
    costs = [[_cost(name, e.mean) for name, e in zip(over, p, strict=True)] for p in points]
    return [ParetoPoint(*one) for one in zip(found, points, undominated(costs), strict=True)]


def undominated(costs: Sequence[Sequence[float]]) -> list[bool]:
    """Find the points that no other beats: as low in all and lower in one. Equal points all stay.

    Args:
        costs: finite, less is better in each; (points, two or more costs).
    """
    points = np.asarray(costs, float)
    kept = [False] * len(points)
    front = np.empty((0, points.shape[1] if points.ndim == 2 else 0))
    # In the order of costs, what beats a point comes before it; and what is beaten by a point that
    # is beaten itself is beaten by one of the front.
    for i in np.lexsort(points.T[::-1]) if len(points) else ():
        as_low = (front <= points[i]).all(1)
        if not (as_low & (front < points[i]).any(1)).any():
            kept[i] = True
            front = np.vstack([front, points[i]])
    return kept


def _cost(name: str, value: float) -> float:
    return -value if quantity(name).better == "higher" else value


def _has_all(group: Group, over: Sequence[str]) -> bool:
    return all(name in METRICS or place(group, name) is not None for name in over)


def _check(runs: pl.DataFrame, over: Sequence[str]) -> None:
    unknown = [name for name in over if name not in runs.columns]
    if unknown:
        known = [name for name in QUANTITIES if name in runs.columns]
        raise RequestError(
            f"no result or setting is called {', '.join(unknown)}; there are {', '.join(known)}, "
            "and the numeric settings of the table"
        )
    if len(set(over)) < 2:
        raise RequestError("a front needs two results or more, such as psnr and params_tokenizer")
