"""Measures of how complex the latents are, and their relation to generation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from analysis.statistics.estimates import Correlation, spearman
from analysis.statistics.groups import Group, groups, ways
from gigatok.claims.verdicts import LEVEL, false_discovery_rates
from gigatok.names import METRICS

TARGETS = ("gfid", "gkid")
MEASURES: dict[str, str] = {
    "ar_val_loss": (
        "validation loss of the autoregressive probe, nats per token "
        "(Xiong et al., GigaTok, arXiv 2504.08736, section 3)"
    ),
    "ar_bits_per_image": (
        "the same loss over all tokens of an image, in bits: the length of the code that the "
        "probe would write (Shannon 1948); comparable between numbers of tokens"
    ),
    "unigram_entropy": "entropy of the code frequencies, nats per token (Shannon 1948)",
    "bigram_entropy": (
        "cross-entropy of a code given the one before it, counted on training codes and scored on "
        "validation codes, Witten-Bell smoothing (Witten and Bell 1991)"
    ),
    "trigram_entropy": "the same given the two codes before it",
    "codebook_perplexity": (
        "exp of the unigram entropy: how many equally frequent codes would be as uncertain "
        "(van den Oord et al., VQ-VAE, arXiv 1711.00937)"
    ),
    "effective_rank": (
        "exp of the entropy of the normalised singular values of the latents before quantisation "
        "(Roy and Vetterli, EUSIPCO 2007)"
    ),
}
"""Metric to its definition and source."""


@dataclass(frozen=True)
class Relation:
    """Relation of a measure to a target, over settings.

    Attributes:
        measure: key of the measure.
        target: key of the target.
        settings: labels of the settings that have both, each one pair: seeds are averaged first,
            because seeds of one setting are no independent evidence about settings.
        correlation: None where it cannot be computed.
        reason: why it is None, or what weakens it; else empty.
        q: share of chance among the correlations that are as clear as this one or clearer; None
            without a correlation.
    """

    measure: str
    target: str
    settings: tuple[str, ...]
    correlation: Correlation | None
    reason: str
    q: float | None = None

    @property
    def sentence(self) -> str:
        """Say the relation in words, claiming no more than its interval."""
        names = f"{METRICS[self.measure].label} and {METRICS[self.target].label}"
        found = self.correlation
        if found is None:
            return f"{names}: no correlation, {self.reason}."
        caution = f" Caution: {self.reason}." if self.reason else ""
        text = f"{names}: Spearman {found.rho:+.2f}"
        if found.low is None or found.high is None:
            return f"{text}, n = {found.n} settings, too few for an interval.{caution}"
        # By q and not by the interval, which is right in 95 % of cases for one correlation alone.
        is_shown = self.q is not None and self.q <= LEVEL
        verdict = "an association" if is_shown else "no association is shown"
        verdict += f" (q = {self.q:.2g})" if self.q is not None else ""
        return (
            f"{text} [{found.low:+.2f}, {found.high:+.2f}], n = {found.n} settings: "
            f"{verdict}.{caution}"
        )


def complexity_relations(runs: pl.DataFrame, targets: Sequence[str] = TARGETS) -> list[Relation]:
    """Correlate every measure with every target that some setting has both of, tested together."""
    relations = [_relation(runs, measure, target) for target in targets for measure in MEASURES]
    made = [relation for relation in relations if relation.settings]
    ps = [relation.correlation.p for relation in made if relation.correlation is not None]
    rates = iter(false_discovery_rates(ps))
    return [r if r.correlation is None else replace(r, q=next(rates)) for r in made]


def _relation(runs: pl.DataFrame, measure: str, target: str) -> Relation:
    # Both numbers from the same seed, so that each pair is of networks that belong together.
    both = [g for g in groups(runs) if g.values(measure).keys() & g.values(target).keys()]
    labels = tuple(group.label for group in both)
    # Ranks across two protocols would order the protocols. Of the measure, see below, it weakens
    # the finding but does not forbid it.
    if reason := _mixed(both, target):
        return Relation(measure, target, labels, None, reason)
    # A pair a setting, over the seeds that have both: seeds of a setting are no replicates of it.
    pairs = []
    for group in both:
        x, y = group.values(measure), group.values(target)
        seeds = x.keys() & y.keys()
        pairs.append(tuple(sum(v[s] for s in seeds) / len(seeds) for v in (x, y)))
    found = spearman([x for x, _ in pairs], [y for _, y in pairs])
    if found is None:
        few = len(pairs) < 3
        # `spearman` refuses for one of two reasons only.
        reason = f"{len(pairs)} settings are too few" if few else "one of them never changes"
        return Relation(measure, target, labels, None, reason)
    return Relation(measure, target, labels, found, _mixed(both, measure))


def _mixed(found: Sequence[Group], metric: str) -> str:
    count = len(ways(found, metric))
    return f"{METRICS[metric].label} was measured in {count} ways" if count > 1 else ""
