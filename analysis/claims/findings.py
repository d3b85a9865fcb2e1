"""What each axis of a sweep does to each result, in sentences that claim no more than the data.

Settings are compared that differ in one axis alone: in size, in semantic regularisation, in
anything else that a sweep varies. Differences are taken seed by seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from analysis.claims.tested import Tested, changes, direction, on_all_seeds, paired_p
from analysis.statistics.axes import axes_of, differing, ladders, values_of
from analysis.statistics.estimates import PairedDifference, PairedTest, paired, paired_test
from analysis.statistics.groups import SEMANTIC_WEIGHT, Group, ways
from analysis.statistics.usual import prevailing, unusual
from gigatok.names import METRICS, Metric

RECONSTRUCTION = ("psnr", "lpips", "rfid", "rkid")
AR_LOSS, AR_BITS = "ar_val_loss", "ar_bits_per_image"
GENERATOR = (AR_LOSS, "gfid", "gkid", "probe_accuracy")
LOOKED_AT = (*RECONSTRUCTION, *GENERATOR)
"""Results that are looked at along every axis."""


@dataclass(frozen=True)
class SettingComparison(Tested):
    """Change of setting and what a metric did.

    Attributes:
        metric: key of the metric.
        first: label of the setting compared against.
        second: label of the changed setting.
        change: what differs between them, and where they are in what else varies.
        difference: second minus first on shared seeds; None where there is none to take.
        seed_spread: largest range over seeds inside one setting; None with one seed each.
        head: what is compared.
        rest: cautions behind the answer; without a difference why there is none.
    """

    metric: str
    first: str
    second: str
    change: str
    difference: PairedDifference | None
    seed_spread: float | None
    head: str
    rest: str

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


def compared(found: Sequence[Group]) -> list[SettingComparison]:
    """Make every comparison that the settings allow: axis by axis."""
    varied = [column for axis in axes_of(found) for column in axis.columns]
    usual = prevailing(found)
    return [
        compare(metric, ladder, varied, usual)
        for ladder in ladders(found)
        for metric in comparable(ladder)
        # The ends decide: those between are only looked at for a detour.
        if _measured(metric, (ladder[0], ladder[-1]))
    ]


def comparable(found: Sequence[Group]) -> list[str]:
    """List the results to look at, the AR loss in bits per image where tokens do not compare."""
    in_bits = len(ways(found, AR_LOSS)) > 1 and len(ways(found, AR_BITS)) == 1
    return [AR_BITS if in_bits and metric == AR_LOSS else metric for metric in LOOKED_AT]


def compare(
    metric: str, ladder: Sequence[Group], varied: Sequence[str], usual: Mapping[str, str]
) -> SettingComparison:
    """Compare the first and last of some settings; those between must not hide a detour.

    Args:
        metric: key of the metric.
        ladder: settings in the order of an axis.
        varied: columns that vary in the study; what all settings share is not said of each.
        usual: columns that are said where the value is another than this.
    """
    first, last = ladder[0], ladder[-1]
    score = METRICS[metric]
    axis = differing(first, last)
    change = axis.step_words(axis.steps[0])
    if place := _place(first, [c for c in varied if c not in axis.columns], usual):
        change += f" at {place}"
    head = f"{score.label}, {change}{_unsaid(first, last)}: "
    # Scores of two protocols differ by more than any setting changes.
    protocols = ways((first, last), metric)
    if len(protocols) > 1:
        text = f"not compared, measured in two ways ({' | '.join(sorted(protocols))})."
        return SettingComparison(metric, first.label, last.label, change, None, None, head, text)
    difference = paired(first.values(metric), last.values(metric))
    # The yardstick is the larger of the two ranges, so that one lucky setting cannot set it.
    spread = _seed_spread(metric, (first, last))
    if difference is None:
        rest = "not compared, no seed has both."
    else:
        rest = _detour(score, ladder) + _rate_caution(metric, first, last)
    return SettingComparison(
        metric, first.label, last.label, change, difference, spread, head, rest,
        p=paired_p(difference),
    )  # fmt: skip


def _place(group: Group, columns: Sequence[str], usual: Mapping[str, str]) -> str:
    """Name where on some axes a setting is, unless it is where most are."""
    named = group.words([c for c in columns if c not in usual])
    apart = unusual(group, {c: usual[c] for c in columns if c in usual})
    return " ".join(filter(None, (named, apart)))


def _unsaid(first: Group, last: Group) -> str:
    """Name semantic regularisation where all settings have it and so no label says so."""
    unnamed = SEMANTIC_WEIGHT not in first.identity and first.regularised and last.regularised
    return " (all with semantic regularisation)" if unnamed else ""


def _verdict(one: SettingComparison, difference: PairedDifference) -> str:
    score = METRICS[one.metric]
    shown = changes(score, difference)
    if difference.n == 1:
        return f"{shown}. Whether that is more than chance cannot be told from one seed."
    assert one.seed_spread is not None, "two shared seeds are two values of each setting"
    beside = f"{shown}; seeds of one setting differ by up to {score.text(one.seed_spread)}"
    beside += score.difference_unit
    if not any(difference.differences):
        return f"{beside}. No difference."
    moved = direction(score, difference.mean)
    if one.is_shown:
        return f"{beside}. {moved}: an effect is shown {one.chance}."
    seeds = on_all_seeds(difference)
    way = f"{moved} on {seeds}, but no" if seeds else "No"
    return f"{beside}. {way} effect is shown {one.chance}."


def _detour(score: Metric, ladder: Sequence[Group]) -> str:
    """Name the setting between the ends that lies outside them: the ladder is not monotone."""
    means = [(g, g.estimate(score.name, "half_range")) for g in ladder]
    known = [(group, e) for group, e in means if e is not None]
    # Means and not paired differences: the settings between may lack some of the shared seeds.
    # Ends that differ as expected may hide a middle that does not.
    steps = [second.mean - first.mean for (_, first), (_, second) in pairwise(known)]
    if len(steps) < 2 or all(s >= 0 for s in steps) or all(s <= 0 for s in steps):
        return ""
    axis = differing(ladder[0], ladder[-1])
    counts = {e.n for _, e in known}
    listing = ", ".join(
        f"{axis.words(values_of(g, axis.columns))} {score.text(e.mean)}"
        # The number of seeds is said once where all have as many.
        + (f" ({_seeds(e.n)})" if len(counts) > 1 else "")
        for g, e in known
    )
    each = f" ({_seeds(counts.pop())} each)" if len(counts) == 1 else ""
    return f" Not monotone: {listing}{each}."


def _rate_caution(metric: str, first: Group, last: Group) -> str:
    """Say what reconstruction did meanwhile: a lower AR loss may only mean fewer bits kept."""
    if metric not in (AR_LOSS, AR_BITS):
        return ""
    psnr = paired(first.values("psnr"), last.values("psnr"))
    if psnr is None:
        return " PSNR is missing, so the loss cannot be set against the reconstruction."
    moved = changes(METRICS["psnr"], psnr)
    return f" PSNR moved by {moved} meanwhile: compare at matched reconstruction."


def _seeds(n: int) -> str:
    return "1 seed" if n == 1 else f"{n} seeds"


def _seed_spread(metric: str, found: Iterable[Group]) -> float | None:
    values = [list(group.values(metric).values()) for group in found]
    ranges = [max(v) - min(v) for v in values if len(v) > 1]
    return max(ranges, default=None)


def _measured(metric: str, found: Sequence[Group]) -> bool:
    return all(group.values(metric) for group in found)
