"""All that is looked at without a claim, tested together.

Nobody has said beforehand which findings matter, so that chance has as many opportunities as
there are findings: the share of chance among those that are said to be shown is kept below 5 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from analysis.claims.findings import SettingComparison, compared
from analysis.claims.interactions import Interaction, interactions
from analysis.claims.tested import Tested, together
from analysis.claims.trends import Trend, trends
from analysis.statistics.axes import shared_by_all
from analysis.statistics.groups import groups
from analysis.statistics.usual import prevailing, usual_note

MOST_SENTENCES = 24
"""Findings of which each has a sentence; of more only those that are shown."""
Finding = SettingComparison | Interaction | Trend


@dataclass(frozen=True)
class Exploration:
    """Findings of each kind, corrected for the number of all."""

    comparisons: tuple[SettingComparison, ...]
    interactions: tuple[Interaction, ...]
    trends: tuple[Trend, ...]
    shared: str = ""
    """What all settings share, and no finding repeats."""
    usual: str = ""
    """Sentence on what findings do not say because most settings have it."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """List all, comparisons first."""
        return (*self.comparisons, *self.interactions, *self.trends)

    @property
    def sentences(self) -> tuple[str, ...]:
        """Say how much was looked at, and what is shown; where little was, also what is not."""
        found = self.findings
        if not found:
            return ("No two settings differ in one axis alone: nothing is compared.",)
        tested = sum(one.q is not None for one in found)
        shown = [one for one in found if one.is_shown]
        head = tuple(filter(None, (_looked_at(self, tested, len(shown)), self.usual)))
        if len(found) <= MOST_SENTENCES:
            return (*head, *(one.sentence for one in found))
        # What could not be tested has its reason, which must not be lost.
        untested = [one for one in found if one.q is None]
        return (*head, *(one.sentence for one in (*shown, *untested[:MOST_SENTENCES])))


def explore(runs: pl.DataFrame) -> Exploration:
    """Compare settings, cross axes and take trends, and correct all for their number."""
    found = groups(runs)
    usual = prevailing(found)
    parts = compared(found), interactions(found), trends(found)
    every: list[Tested] = [one for part in parts for one in part]
    corrected = together(every)
    merged = [corrected.get(i, one) for i, one in enumerate(every)]
    return Exploration(
        tuple(one for one in merged if isinstance(one, SettingComparison)),
        tuple(one for one in merged if isinstance(one, Interaction)),
        tuple(one for one in merged if isinstance(one, Trend)),
        shared_by_all(found),
        usual_note(usual, "a finding") if usual else "",
    )


def comparisons(runs: pl.DataFrame) -> list[SettingComparison]:
    """Make every comparison that the trials allow; q is over all that is looked at."""
    return list(explore(runs).comparisons)


def _looked_at(found: Exploration, tested: int, shown: int) -> str:
    kinds: Sequence[tuple[str, Sequence[Tested]]] = (
        ("comparison", found.comparisons),
        ("interaction", found.interactions),
        ("trend", found.trends),
    )
    counts = ", ".join(f"{len(k)} {name}{'s' if len(k) != 1 else ''}" for name, k in kinds if k)
    what = f"Exploration of {found.shared}" if found.shared else "Exploration"
    head = f"{what}, nothing of it claimed beforehand: {counts}"
    if not tested:
        return f"{head}, from one seed each: none can be tested."
    return (
        f"{head}; {tested} of them tested together, {shown} shown. Of findings that are said to "
        "be shown, 5 % are expected to be chance (q, Benjamini and Hochberg 1995)."
    )
