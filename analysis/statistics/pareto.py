"""Results that no other beats in two respects at once."""

from __future__ import annotations

import math
from collections.abc import Sequence


def undominated(costs: Sequence[tuple[float, float]]) -> list[bool]:
    """Find the pairs that no other beats: as low in both and lower in one. Equal pairs all stay.

    Args:
        costs: finite, less is better in both.
    """
    kept = [False] * len(costs)
    # Sorted by the first cost, a pair is undominated when its second is below all before it: one
    # pass instead of comparing all pairs. An equal pair follows its twin directly and stays with
    # it.
    last = (math.inf, math.inf)
    for i in sorted(range(len(costs)), key=costs.__getitem__):
        if costs[i][1] < last[1] or costs[i] == last:
            kept[i], last = True, costs[i]
    return kept
