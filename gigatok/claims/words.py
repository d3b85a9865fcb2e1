"""Claims and their verdicts in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from gigatok.claims.claim import Claim, Extrapolation
from gigatok.claims.evidence import Evidence
from gigatok.claims.power import aim_of, more_seeds
from gigatok.claims.verdicts import LEVEL, Verdict
from gigatok.names import METRICS

WANTED_POWER = 0.8
"""Probability with which the seeds that are advised decide a claim, if its effect is real."""


class FoundWords(NamedTuple):
    """Evidence on a claim in words; a part that there is none of is empty."""

    effect: str
    interval: str
    p: str
    seeds: str

    def __str__(self) -> str:
        """Join the parts as they stand in a sentence."""
        chance = [f"p = {self.p}"] if self.p else []
        return ", ".join((f"{self.effect} {self.interval}", *chance, self.seeds))


@dataclass(frozen=True)
class JudgedClaim:
    """Claim, when it was made, and its verdict.

    Attributes:
        at: UNIX seconds of the first launch with it.
        results: results of its settings that were there by then.
        prediction: what its smaller settings said of the largest one.
    """

    verdict: Verdict
    at: float
    results: int
    prediction: Extrapolation | None = None

    @property
    def sentence(self) -> str:
        """Say the verdict, on what it rests, what was claimed and what would decide it."""
        claim, verdict = self.verdict.claim, self.verdict
        # What was found comes first: below "contradicted", the claim itself reads as a finding.
        found = self.found or "its settings have too few results yet"
        made = [self.made]
        if self.prediction is not None:
            made.append(_predicted(claim, self.prediction))
        claimed = f"Claimed: {claim.text} ({'; '.join(made)})."
        parts = f"{claim.name}: {verdict.decision}, {found}.", claimed, self.advice
        return " ".join(filter(None, parts))

    @property
    def found(self) -> FoundWords | None:
        """Say on what the verdict rests; None without results."""
        evidence = self.verdict.evidence
        return None if evidence is None else _evidence(self.verdict, evidence)

    @property
    def advice(self) -> str:
        """Say what would decide the claim; empty where it is decided, or nobody knows."""
        return _advice(self.verdict)

    @property
    def made(self) -> str:
        """Say when the claim was made, seen from its results."""
        when = _moment(self.at)
        if self.results == 0:
            return f"before any result existed, {when}"
        plural = "result was" if self.results == 1 else "results were"
        return f"after {self.results} {plural} known, {when}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _predicted(claim: Claim, prediction: Extrapolation) -> str:
    """Say what the smaller settings predicted, and whether the largest one had begun by then."""
    metric = METRICS[claim.metric]
    value, low, high = (
        metric.text(number) for number in (prediction.value, prediction.low, prediction.high)
    )
    when = "after it had begun" if prediction.begun else "before it began"
    return (
        f"predicted {value}{metric.unit_behind} [{low}, {high}] {when}, {_moment(prediction.at)}"
    )


def _evidence(verdict: Verdict, evidence: Evidence) -> FoundWords:
    claim, metric = verdict.claim, METRICS[verdict.claim.metric]
    low, high = evidence.interval(LEVEL)
    # In the metric's own direction: a claimed fall that is seen has a negative effect.
    if claim.kind in ("trend", "order", "difference") and not claim.rises:
        low, high = -high, -low
    effect = evidence.effect if claim.rises else -evidence.effect
    if claim.kind == "prediction":
        size = f"off by {_percent(evidence.effect)}"
        interval = f"[{_percent(low)}, {_percent(high)}]"
    else:
        size = f"{metric.signed(effect, 1)}{metric.difference_unit}{_per(claim)}"
        interval = f"[{metric.signed(low, 1)}, {metric.signed(high, 1)}]"
    if evidence.error == 0:
        # An interval of no width would say that the effect is known exactly.
        interval = "without any spread"
    assert verdict.p is not None or verdict.decision == "undecided"
    p = "" if verdict.p is None else f"{verdict.p:.2g}"
    seeds = f"{evidence.seeds} shared seed{'s' if evidence.seeds != 1 else ''}"
    return FoundWords(size, interval, p, seeds)


def _percent(log_ratio: float) -> str:
    """Write a ratio, given as its logarithm, as what it is off by."""
    return f"{math.expm1(log_ratio):+.1%}".replace("-", "−").replace("%", " %")


def _per(claim: Claim) -> str:
    return {"trend": " per doubling", "order": " at the least step"}.get(claim.kind, "")


def _advice(verdict: Verdict) -> str:
    """Say what would decide a claim that is not decided."""
    evidence, claim = verdict.evidence, verdict.claim
    if verdict.decision != "undecided" or evidence is None:
        return ""
    if not claim.decided_by_seeds:
        return "More sizes would tell more; more seeds of these hardly do."
    if evidence.error == 0:
        return _advice_without_spread(evidence, verdict.level)
    effect, spread = evidence.effect, evidence.error * math.sqrt(evidence.seeds)
    aim = aim_of(claim, effect)
    more = more_seeds(effect, spread, evidence.seeds, verdict.level, WANTED_POWER, aim)
    if more is None:
        return "No sensible number of seeds decides it if the effect is what it seems."
    plural = "seed decides" if more == 1 else "seeds decide"
    chance = f"with probability {WANTED_POWER:g} if the effect is what it seems"
    return f"{more} more {plural} it {chance}."


def _advice_without_spread(evidence: Evidence, level: float) -> str:
    """Say how many equal differences are beyond chance: each seed more halves p."""
    if evidence.p == 1:
        return ""
    more = max(1, math.ceil(math.log2(evidence.p / level)))
    plural = "seed decides" if more == 1 else "seeds decide"
    return f"All seeds differ alike, which few do by chance: {more} more {plural} it if all do."


def legend(claims: Sequence[JudgedClaim]) -> str:
    """Say at which error rate the verdicts are given."""
    n = len(claims)
    return (
        f"{n} claim{'s' if n != 1 else ''}; p is two-sided and corrected for their number (Holm): "
        f"by chance alone at most one study in {1 / LEVEL:.0f} has any verdict. "
        "Intervals of 95 %, each by itself."
    )
