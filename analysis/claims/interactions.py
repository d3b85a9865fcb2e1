"""Interactions of two axes: whether one changes what the other does.

An interaction is a 2×2 contrast: the effect of one axis at the last place of another, less its
effect at the first place. It is taken seed by seed, where all four settings have the seed, and
averaged over families, which differ in further axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from statistics import fmean

from analysis.claims.findings import comparable
from analysis.claims.tested import Tested, changes, interval, on_all_seeds, paired_p
from analysis.statistics.axes import Axis, Values, alike, axes_of, values_of
from analysis.statistics.estimates import PairedDifference, paired
from analysis.statistics.groups import Group, ways
from gigatok.claims.evidence import ROUNDING
from gigatok.names import METRICS

Step = tuple[Values, Values]
Corners = tuple[Group, Group, Group, Group]
"""Settings of a 2×2: neither axis moved, the first, the second, both."""


@dataclass(frozen=True)
class Interaction(Tested):
    """Change of one axis' effect along another.

    Attributes:
        metric: key of the metric.
        first: step along the first axis, in words.
        second: step along the second.
        difference: effect of the first step behind the second, less that before it, by seed.
        families: number of 2×2 contrasts that were averaged.
    """

    metric: str
    first: str
    second: str
    difference: PairedDifference
    families: int

    @property
    def sentence(self) -> str:
        """Give the answer, complete in itself."""
        score = METRICS[self.metric]
        averaged = (
            f", average of {self.families} settings of the rest" if self.families > 1 else ""
        )
        text = f"{score.label}, {self.first} × {self.second}{averaged}: the second changes the "
        text += f"effect of the first by {changes(score, self.difference)}"
        text += interval(score, self.difference)
        if self.difference.n == 1:
            return f"{text}. Whether that is more than chance cannot be told from one seed."
        if not any(self.difference.differences):
            return f"{text}. No interaction."
        if self.is_shown:
            return f"{text}. An interaction is shown {self.chance}."
        seeds = on_all_seeds(self.difference)
        way = f"One way on {seeds}, but no" if seeds else "No"
        return f"{text}. {way} interaction is shown {self.chance}."


def interactions(found: Sequence[Group]) -> list[Interaction]:
    """Take the contrasts of every two axes that the settings cross, for each result."""
    made = []
    for one, other in combinations(axes_of(found), 2):
        for first, second in product(one.steps, other.steps):
            corners = _crossed(found, (one, other), (first, second))
            words = one.step_words(first), other.step_words(second)
            every = [group for four in corners for group in four]
            contrasts = ((metric, _contrast(corners, metric)) for metric in comparable(every))
            made += [
                Interaction(metric, *words, difference, len(corners), p=paired_p(difference))
                for metric, difference in contrasts
                if difference is not None
            ]
    return made


def _crossed(
    found: Sequence[Group], axes: tuple[Axis, Axis], steps: tuple[Step, Step]
) -> list[Corners]:
    """Find the four settings of each family that has them."""
    one, other = axes
    crossed = []
    for members in alike(found, {*one.columns, *other.columns}):
        at = {(values_of(g, one.columns), values_of(g, other.columns)): g for g in members}
        places = [(a, b) for b in steps[1] for a in steps[0]]
        if all(place in at for place in places):
            neither, first, second, both = (at[place] for place in places)
            crossed.append((neither, first, second, both))
    return crossed


def _contrast(corners: Sequence[Corners], metric: str) -> PairedDifference | None:
    """Average the contrast over families, by seed; None where no seed has all settings."""
    groups = [group for four in corners for group in four]
    # Scores of two protocols differ by more than any setting changes; the comparisons say so.
    if not groups or len(ways(groups, metric)) != 1:
        return None
    values = [[group.values(metric) for group in four] for four in corners]
    seeds = set.intersection(*(set(found) for four in values for found in four))
    contrasts = {
        seed: fmean((both[seed] - second[seed]) - (first[seed] - neither[seed])
                    for neither, first, second, both in values)
        for seed in seeds
    }  # fmt: skip
    # Four equal values leave rounding and no contrast.
    largest = max((abs(v[seed]) for four in values for v in four for seed in seeds), default=0.0)
    return paired(
        dict.fromkeys(seeds, 0.0),
        {s: c if abs(c) > ROUNDING * largest else 0.0 for s, c in contrasts.items()},
    )
