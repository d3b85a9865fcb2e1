"""Verdicts on many claims as a table for terminals: a line each instead of a paragraph."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from gigatok.claims.verdicts import Decision
from gigatok.claims.words import JudgedClaim
from gigatok.names import METRICS
from gigatok.text.fitting import FittingTable

STYLES: dict[Decision, str] = {"contradicted": "red", "supported": "green", "undecided": ""}


def verdict_table(judged: Sequence[JudgedClaim]) -> FittingTable:
    """Make a row for every claim, in the order given."""
    advice = "what would decide it"
    made = FittingTable(
        ("claim", "verdict", "metric", "effect", "95 % interval", "p", "seeds", advice),
        right=("effect", "95 % interval", "p", "seeds"),
        # Effects too, between number and unit: no number is broken.
        wraps=("effect", advice),
        # What a narrow terminal leaves out the sentences say.
        drops=(advice, "seeds", "95 % interval", "metric"),
        more="a wider terminal shows them",
    )
    for one in judged:
        claim, decision = one.verdict.claim, one.verdict.decision
        # Without any result there is no effect, nor anything behind it.
        cells = ("no result yet", "", "", "") if one.found is None else one.found
        effect, interval, p, seeds = cells
        made.add_row(
            claim.name,
            Text(decision, STYLES[decision]),
            METRICS[claim.metric].label,
            *(effect, interval, p, seeds.partition(" ")[0]),
            one.advice,
        )
    return made
