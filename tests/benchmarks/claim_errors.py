"""Error rates of verdicts, by simulation: `python tests/benchmarks/claim_errors.py [STUDIES]`.

Studies of pure noise, of which a share of the variance belongs to the setting (the correlation of
its seeds), judged with several numbers of seeds and claims, once and at every look: how many have
any false verdict, how often intervals hold the truth; then planted effects against the power that
was predicted for them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from gigatok.claims.claim import Arm, Claim, Kind, Looks
from gigatok.claims.evidence import Results, weigh
from gigatok.claims.power import power, power_of_looks
from gigatok.claims.verdicts import verdicts

SIZES = (1.0, 2.0, 4.0, 8.0, 16.0)


def claims_of(kind: Kind, count: int, margin: float = 0.0) -> list[Claim]:
    """Make so many claims, each about settings of its own."""
    made = []
    for index in range(count):
        names = [f"{index}-{place}" for place in range(len(SIZES))]
        chosen = names if kind in ("trend", "prediction") else names[:2]
        arms = tuple(Arm(setting=name, x=x) for name, x in zip(chosen, SIZES, strict=False))
        made.append(
            Claim(name=str(index), text="", kind=kind, metric="m", margin=margin, families=(arms,))
        )
    return made


def study(claims: Sequence[Claim], seeds: int, shared: float, rng: np.random.Generator) -> Results:
    """Draw results without any effect; settings of a difference are truly equal."""
    made: dict[str, dict[int, float]] = {}
    for claim in claims:
        fixed = claim.kind not in ("trend", "prediction")
        for arm in claim.families[0]:
            # A setting's own share is a difference where two settings are compared, and no trend.
            own = 0.0 if fixed else rng.normal() * np.sqrt(shared)
            noise = rng.normal(size=seeds) * np.sqrt(1 - shared)
            # Positive, so that a power law can be asked for.
            made[arm.setting] = dict(enumerate(np.exp(0.05 * (own + noise)).tolist()))
    return made


def false_verdicts(
    kind: Kind, seeds: int, count: int, shared: float, looks: Looks | None, studies: int
) -> float:
    """Measure the share of studies of noise with any verdict."""
    rng = np.random.default_rng(1)
    claims = claims_of(kind, count)
    any_false = 0
    for _ in range(studies):
        found = verdicts(claims, {"m": study(claims, seeds, shared, rng)}, looks)
        any_false += any(v.decision != "undecided" for v in found)
    return any_false / studies


def coverage(kind: Kind, seeds: int, shared: float, studies: int) -> float:
    """Measure how often the 95 % interval of one claim holds the true effect of 0."""
    rng = np.random.default_rng(2)
    (claim,) = claims_of(kind, 1)
    held = 0
    for _ in range(studies):
        evidence = weigh(claim, study([claim], seeds, shared, rng))
        assert evidence is not None
        low, high = evidence.interval(0.05)
        held += low <= 0 <= high
    return held / studies


def found_rate(effect: float, looks: Looks, studies: int, *, sequential: bool) -> float:
    """Measure how often a planted difference, in standard deviations, is found."""
    rng = np.random.default_rng(3)
    claims = claims_of("difference", 1)
    first, second = (arm.setting for arm in claims[0].families[0])
    found = 0
    for _ in range(studies):
        noise = rng.normal(size=looks.at_most) + effect
        results = {
            first: dict.fromkeys(range(looks.at_most), 0.0),
            second: dict(enumerate(noise.tolist())),
        }
        (verdict,) = verdicts(claims, {"m": results}, looks if sequential else None)
        found += verdict.decision == "supported"
    return found / studies


def main(studies: int) -> None:
    """Print three tables."""
    console = Console()
    table = Table(
        "kind",
        "seeds",
        "claims",
        "ICC",
        "fixed",
        "looks from 2",
        "interval holds",
        title=f"studies of noise with any verdict, {studies} each (5 % wanted)",
    )
    kinds: tuple[Kind, ...] = ("difference", "trend", "prediction")
    for kind in kinds:
        for seeds in (2, 3, 5, 8):
            for shared in (0.0,) if kind == "difference" else (0.0, 0.5, 0.9):
                for count in (1, 8, 30):
                    few = max(20, studies // count)
                    looks = Looks(start=2, at_most=seeds) if seeds > 2 else None
                    fixed = false_verdicts(kind, seeds, count, shared, None, few)
                    many = looks and false_verdicts(kind, seeds, count, shared, looks, few)
                    held = f"{coverage(kind, seeds, shared, studies):.1%}" if count == 1 else ""
                    words = "" if many is None else f"{many:.1%}"
                    table.add_row(
                        kind, str(seeds), str(count), f"{shared}", f"{fixed:.1%}", words, held
                    )
    console.print(table)
    table = Table(
        "effect/spread", "seeds", "predicted", "found", "looks: predicted", "found", title="power"
    )
    for effect in (0.5, 1.0, 2.0):
        for seeds in (3, 5, 8):
            looks = Looks(start=2, at_most=seeds)
            table.add_row(
                str(effect),
                str(seeds),
                f"{power(effect, 1.0, seeds):.1%}",
                f"{found_rate(effect, looks, studies, sequential=False):.1%}",
                f"{power_of_looks(effect, 1.0, looks):.1%}",
                f"{found_rate(effect, looks, studies, sequential=True):.1%}",
            )
    console.print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4000)
