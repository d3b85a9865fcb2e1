"""Search for the best guidance scale, as a pure function of the scores so far.

So a search that was killed continues as if nothing had happened, and all processes of a stage come
to the same decision. Scores are of samples drawn with the same seeds at every scale. Imports no
torch.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from math import sqrt

from gigatok.config import Config, GuidanceConfig

_GOLDEN = (3 - sqrt(5)) / 2
"""Position of golden section search's probe in the larger part of a bracket."""
# Rounded scales make equal ones equal, and names of files short.
_DIGITS = 3
"""Decimals of a scale."""


class ScoredScale(Config):
    """Scores at one scale; KID and its standard error are None without reference images."""

    cfg_scale: float
    gfid: float
    gkid: float | None = None
    gkid_se: float | None = None


def best(config: GuidanceConfig, scored: Sequence[ScoredScale]) -> ScoredScale:
    """Return the scale with the lowest objective; of equal ones the smallest."""
    # Ties are broken by the scale, so that the order of scoring decides nothing.
    return min(scored, key=lambda point: (_objective(config, point), point.cfg_scale))


def next_scale(config: GuidanceConfig, scored: Sequence[ScoredScale]) -> float | None:
    """Return the scale to score after these, in their order of scoring; None: the search ends.

    * grid: `coarse` scales from `low` to `high`, then `refine` probes by golden section in the
      bracket of the best one's neighbours. Every trial scores equally many.
    * hill_climb: from `start`, `step` above and then below the best so far, until both are worse
      (the reference's `sample_c2i_cfg_search.py`). The number of scales differs between trials.
    """
    if config.search == "hill_climb":
        return _climb(config, scored)
    if len(scored) < config.coarse:
        width = (config.high - config.low) / (config.coarse - 1)
        return round(config.low + len(scored) * width, _DIGITS)
    if len(scored) >= config.coarse + config.refine:
        return None
    return _golden_section(config, scored)


def at_edge(config: GuidanceConfig, scale: float) -> bool:
    """Tell whether a scale is the smallest or largest allowed: a better one may lie beyond.

    A scale of 1, no guidance, is not such an edge: nothing lies below it.
    """
    return scale >= config.high or scale <= config.low > 1


def to_csv(scored: Sequence[ScoredScale]) -> str:
    """Write the curve as CSV in the order of scoring."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(ScoredScale.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(point.model_dump() for point in scored)
    return file.getvalue()


def _objective(config: GuidanceConfig, point: ScoredScale) -> float:
    value = point.gkid if config.objective == "gkid" else point.gfid
    assert value is not None, "a KID without images was refused with the config"
    return value


def _climb(config: GuidanceConfig, scored: Sequence[ScoredScale]) -> float | None:
    if not scored:
        return config.start
    known = {point.cfg_scale for point in scored}
    top = best(config, scored).cfg_scale
    # Above first, as the reference does.
    for neighbour in (round(top + config.step, _DIGITS), round(top - config.step, _DIGITS)):
        if config.low <= neighbour <= config.high and neighbour not in known:
            return neighbour
    return None


def _golden_section(config: GuidanceConfig, scored: Sequence[ScoredScale]) -> float | None:
    """Return the next probe, in the larger part of the best one's bracket; None: too narrow."""
    middle = best(config, scored).cfg_scale
    known = {point.cfg_scale for point in scored}
    # At an end of the range the bracket has one part only.
    low = max((scale for scale in known if scale < middle), default=middle)
    high = min((scale for scale in known if scale > middle), default=middle)
    above, below = high - middle, middle - low
    # The larger part can hide the lower minimum; equal parts are searched upwards.
    probe = middle + _GOLDEN * above if above >= below else middle - _GOLDEN * below
    rounded = round(probe, _DIGITS)
    return None if rounded in known else rounded
