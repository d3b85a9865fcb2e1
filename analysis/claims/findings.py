"""What each axis of a sweep does to each result, in sentences that claim no more than the data.

Settings are compared that differ in one axis alone: in size, in semantic regularisation, in
anything else that a sweep varies. Differences are taken seed by seed. Nobody has
said beforehand which of them matter, so that chance has as many opportunities as there are
sentences: the share of chance among those that say that an effect is shown is kept below 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import stdev

import polars as pl

from analysis.statistics.estimates import PairedDifference, PairedTest, paired, paired_test
from analysis.statistics.groups import SEMANTIC_WEIGHT, Group, groups, show, ways
from gigatok.claims.evidence import beyond
from gigatok.claims.verdicts import LEVEL, false_discovery_rates
from gigatok.names import METRICS, PARAM_TOKENIZER, Metric

RECONSTRUCTION = ("psnr", "lpips", "rfid", "rkid")
AR_LOSS = "ar_val_loss"
GENERATOR = (AR_LOSS, "gfid", "gkid", "probe_accuracy")
_MAX_LISTED = 4
"""Differences of single seeds that a sentence lists."""


@dataclass(frozen=True)
class SettingComparison:
    """Change of setting and what a metric did.

    Attributes:
        metric: key of the metric.
        first: label of the setting compared against.
        second: label of the changed setting.
        difference: second minus first on shared seeds; None where there is none to take.
        seed_spread: largest range over seeds inside one setting; None with one seed each.
        head: what is compared.
        rest: cautions behind the answer; without a difference why there is none.
        q: share of chance among the comparisons that are as clear as this one or clearer; None
            with fewer than two shared seeds.
        looked: number of comparisons that were looked at together.
    """

    metric: str
    first: str
    second: str
    difference: PairedDifference | None
    seed_spread: float | None
    head: str
    rest: str
    q: float | None = None
    looked: int = 1

    @property
    def sentence(self) -> str:
        """Give the answer, complete in itself."""
        if self.difference is None:
            return self.head + self.rest
        return self.head + _verdict(self, self.difference) + self.rest

    @property
    def test(self) -> PairedTest | None:
        """Effect size and sign-flip test of the difference."""
        return None if self.difference is None else paired_test(self.difference)


def comparisons(runs: pl.DataFrame) -> list[SettingComparison]:
    """Make every comparison that the trials allow: axis by axis, in the order of the questions."""
    result = [
        compare(metric, ladder)
        for ladder in ladders(groups(runs))
        for metric in (*RECONSTRUCTION, *GENERATOR)
        # The ends decide: those between are only looked at for a detour.
        if _measured(metric, (ladder[0], ladder[-1]))
    ]
    return _together(result)


def _together(found: Sequence[SettingComparison]) -> list[SettingComparison]:
    """Correct the comparisons for their number."""
    tested = {i: p for i, one in enumerate(found) if (p := _chance(one.difference)) is not None}
    rates = dict(zip(tested, false_discovery_rates(list(tested.values())), strict=True))
    return [replace(one, q=rates.get(i), looked=len(tested)) for i, one in enumerate(found)]


def _chance(difference: PairedDifference | None) -> float | None:
    """Compute the two-sided p of the paired t test; None with fewer than two seeds."""
    if difference is None or difference.n < 2:
        return None
    error = stdev(difference.differences) / math.sqrt(difference.n)
    return min(1.0, 2 * min(beyond(difference.mean, error, difference.n - 1, 0.0)))


def compare(metric: str, ladder: Sequence[Group]) -> SettingComparison:
    """Compare the first and last of some settings; those between must not hide a detour."""
    first, last = ladder[0], ladder[-1]
    score = METRICS[metric]
    head = f"{score.label}, {first.label} → {last.label}{_unsaid(first, last)}: "
    # Scores of two protocols differ by more than any setting changes.
    protocols = ways((first, last), metric)
    if len(protocols) > 1:
        text = f"not compared, measured in two ways ({' | '.join(sorted(protocols))})."
        return SettingComparison(metric, first.label, last.label, None, None, head, text)
    difference = paired(first.values(metric), last.values(metric))
    # The yardstick is the larger of the two ranges, so that one lucky setting cannot set it.
    spread = _seed_spread(metric, (first, last))
    if difference is None:
        rest = "not compared, no seed has both."
    else:
        rest = _detour(score, ladder) + _rate_caution(metric, first, last)
    return SettingComparison(metric, first.label, last.label, difference, spread, head, rest)


def _unsaid(first: Group, last: Group) -> str:
    """Name semantic regularisation where all settings have it and so no label says so."""
    unnamed = SEMANTIC_WEIGHT not in first.identity and first.regularised and last.regularised
    return " (all with semantic regularisation)" if unnamed else ""


def _verdict(one: SettingComparison, difference: PairedDifference) -> str:
    score = METRICS[one.metric]
    shown = _changes(score, difference)
    if difference.n == 1:
        return f"{shown}. Whether that is more than chance cannot be told from one seed."
    assert one.seed_spread is not None, "two shared seeds are two values of each setting"
    beside = f"{shown}; seeds of one setting differ by up to {score.text(one.seed_spread)}"
    beside += score.unit_behind
    if not any(difference.differences):
        return f"{beside}. No difference."
    assert one.q is not None, "every difference of two seeds is tested"
    chance = f"(q = {one.q:.2g} of {one.looked} comparison{'s' if one.looked != 1 else ''})"
    if one.q <= LEVEL:
        return f"{beside}. {_direction(score, difference.mean)}: an effect is shown {chance}."
    # Differences of 0 have no sign; they neither agree nor disagree.
    signs = {d > 0 for d in difference.differences if d}
    seeds = "both seeds" if difference.n == 2 else f"all {difference.n} seeds"
    way = f"{_direction(score, difference.mean)} on {seeds}, but no"
    return f"{beside}. {way if len(signs) == 1 else 'No'} effect is shown {chance}."


def _changes(score: Metric, difference: PairedDifference) -> str:
    """Print the difference of each seed; of many seeds, their mean and extremes."""
    values = difference.differences
    if difference.n > _MAX_LISTED:
        ends = f"{score.signed(min(values))} to {score.signed(max(values))}"
        mean = f"{score.signed(difference.mean)}{score.unit_behind}"
        return f"{mean} ({ends} on {difference.n} seeds)"
    plural = "seed" if difference.n == 1 else "seeds"
    listing = " and ".join(score.signed(value) for value in values)
    return f"{listing}{score.unit_behind} on {plural} {', '.join(map(str, difference.seeds))}"


def _direction(score: Metric, change: float) -> str:
    moved = "Higher" if change > 0 else "Lower"
    if score.better is None:
        return moved
    judged = "better" if (change > 0) == (score.better == "higher") else "worse"
    return f"{moved} ({judged})"


def _detour(score: Metric, ladder: Sequence[Group]) -> str:
    """Name the setting between the ends that lies outside them: the ladder is not monotone."""
    means = [(g, g.estimate(score.name, "half_range")) for g in ladder]
    known = [(group, e) for group, e in means if e is not None]
    # Means and not paired differences: the settings between may lack some of the shared seeds.
    # Ends that differ as expected may hide a middle that does not.
    steps = [second.mean - first.mean for (_, first), (_, second) in pairwise(known)]
    if len(steps) < 2 or all(s >= 0 for s in steps) or all(s <= 0 for s in steps):
        return ""
    listing = ", ".join(f"{g.label} {score.text(e.mean)} ({_seeds(e.n)})" for g, e in known)
    return f" Not monotone: {listing}."


def _rate_caution(metric: str, first: Group, last: Group) -> str:
    """Say what reconstruction did meanwhile: a lower AR loss may only mean fewer bits kept."""
    if metric != AR_LOSS:
        return ""
    psnr = paired(first.values("psnr"), last.values("psnr"))
    if psnr is None:
        return " PSNR is missing, so the loss cannot be set against the reconstruction."
    changes = _changes(METRICS["psnr"], psnr)
    return f" PSNR moved by {changes} meanwhile: compare at matched reconstruction."


def _seeds(n: int) -> str:
    return "1 seed" if n == 1 else f"{n} seeds"


def _seed_spread(metric: str, found: Iterable[Group]) -> float | None:
    values = [list(group.values(metric).values()) for group in found]
    ranges = [max(v) - min(v) for v in values if len(v) > 1]
    return max(ranges, default=None)


def _measured(metric: str, found: Sequence[Group]) -> bool:
    return all(group.values(metric) for group in found)


def ladders(found: Sequence[Group]) -> list[list[Group]]:
    """Collect settings that differ in one axis alone, two or more, in the axis' order.

    Tokenizers are ordered by parameters, numbers ascending. Values without an order, such as kinds
    of quantizers, are each compared with the first as listed.
    """
    result: list[list[Group]] = []
    for axis in _axes(found):
        series: dict[object, list[Group]] = {}
        for group in found:
            rest = tuple((k, v) for k, v in group.identity.items() if k not in axis)
            series.setdefault(rest, []).append(group)
        for members in series.values():
            result += _ladders_of(axis, members)
    return result


def _axes(found: Sequence[Group]) -> list[tuple[str, ...]]:
    """Bundle the varying columns: those that determine each other, as in a zip, are one axis."""
    axes: list[list[str]] = []
    columns = list(found[0].identity) if found else []
    values = {c: [show(group.identity[c]) for group in found] for c in columns}
    for column in columns:
        if len(set(values[column])) < 2:
            continue
        for axis in axes:
            pairs = set(zip(values[axis[0]], values[column], strict=True))
            if len(pairs) == len(set(values[axis[0]])) == len(set(values[column])):
                axis.append(column)
                break
        else:
            axes.append([column])
    return [tuple(axis) for axis in axes]


def _ladders_of(axis: tuple[str, ...], members: Sequence[Group]) -> list[list[Group]]:
    if PARAM_TOKENIZER in axis:
        # By parameters, which the names of sizes do not order: S-L is larger than B-B.
        known = [group for group in members if group.size is not None]
        ladder = sorted(known, key=lambda group: group.size or 0.0)
        return [ladder] if len(ladder) > 1 else []
    for column in axis:
        values = [group.identity[column] for group in members]
        # No value means off, as 0 does.
        if all(value is None or isinstance(value, int | float) for value in values):
            ladder = sorted(members, key=lambda g: g.identity[column] or 0.0)
            return [ladder] if len(ladder) > 1 else []
    return [[members[0], other] for other in members[1:]]
