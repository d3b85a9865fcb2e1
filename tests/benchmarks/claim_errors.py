"""Error rates of verdicts, by simulation: `python tests/benchmarks/claim_errors.py [CLAIMS]`.

Claims about pure noise, of which a share of the variance belongs to the setting (the correlation
of its seeds), are judged with several numbers of seeds, once and at every look; studies are put
together from them, with several numbers of claims. How many studies have any false verdict, how
often intervals hold the truth; the same of scores in steps, such as shares of few images; and
planted effects against the power that was predicted.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from gigatok.claims.claim import Arm, Claim, Kind, Looks
from gigatok.claims.evidence import Results, weigh
from gigatok.claims.power import aim_of, foresee, power
from gigatok.claims.verdicts import LEVEL, Verdict, holm, verdicts

Floats = npt.NDArray[np.float64]
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0)
ARMS: dict[Kind, int] = {
    "difference": 2,
    "order": 3,
    "equivalence": 2,
    "trend": 5,
    "prediction": 5,
}
BY_SIZES = ("trend", "prediction")
SPREAD = 0.05
"""Standard deviation of the logarithm of results; a power law is of positive values."""
MARGIN = 0.1
"""Of equivalences, which truly differ by just as much: to call them equal is false."""


def claim_of(kind: Kind, margin: float = 0.0) -> Claim:
    """Make a claim about as many settings as its kind needs."""
    arms = tuple(Arm(setting=f"{x:g}", x=x) for x in SIZES[: ARMS[kind]])
    return Claim(name="c", text="", kind=kind, metric="m", margin=margin, families=(arms,))


def noise(kind: Kind, seeds: int, shared: float, count: int, step: float = 0.0) -> Floats:
    """Draw the results of one claim again and again, as if nothing were so.

    Args:
        kind: of the claim.
        seeds: of every setting.
        shared: part of the variance that all seeds of a setting share.
        count: how often.
        step: results are rounded to it.

    Returns:
        Values (count, settings, seeds).
    """
    rng = np.random.default_rng(1)
    arms = ARMS[kind]
    # A setting's own share is a difference where two settings are compared, and no trend.
    own = rng.normal(size=(count, arms, 1)) * np.sqrt(shared) * (kind in BY_SIZES)
    values = np.exp(SPREAD * (own + rng.normal(size=(count, arms, seeds)) * np.sqrt(1 - shared)))
    if kind == "equivalence":
        values[:, 1] += MARGIN
    rounded: Floats = np.round(values / step) * step if step else values
    return rounded


def judged(claim: Claim, results: Results, looks: Looks | None) -> Verdict:
    """Judge a claim alone: its p is corrected for the looks."""
    (verdict,) = verdicts([claim], {"m": results}, looks)
    return verdict


def any_verdict(ps: Floats, claims: int) -> str:
    """Say which share of studies with so many claims has a verdict, and its standard error."""
    studies = ps[: len(ps) // claims * claims].reshape(-1, claims)
    rate = float(np.mean([min(holm(study)) <= LEVEL for study in studies.tolist()]))
    return f"{rate:.1%} ± {np.sqrt(rate * (1 - rate) / len(studies)):.1%}"


@dataclass(frozen=True)
class Row:
    """Claims of one kind about noise: p-values, and how often intervals held the truth."""

    fixed: Floats
    looked: Floats | None
    held: float


@lru_cache
def simulate(kind: Kind, seeds: int, shared: float, count: int, step: float = 0.0) -> Row:
    """Judge a claim about noise so often, with all seeds at once and from two seeds on."""
    values = noise(kind, seeds, shared, count, step)
    truth = MARGIN if kind == "equivalence" else 0.0
    if truth and step:
        # Of rounded values the difference is another one.
        truth = float((values[:, 1] - values[:, 0]).mean())
    claim = claim_of(kind, truth)
    looks = Looks(start=2, at_most=seeds) if seeds > 2 else None
    fixed, looked, held = [], [], 0
    for drawn in values.tolist():
        results = {f"{x:g}": dict(enumerate(v)) for x, v in zip(SIZES, drawn, strict=False)}
        evidence = weigh(claim, results)
        assert evidence is not None
        low, high = evidence.interval(LEVEL)
        held += low <= truth <= high
        fixed.append(evidence.p)
        if looks is not None:
            p = judged(claim, results, looks).p
            looked.append(1.0 if p is None else p)
    return Row(np.array(fixed), np.array(looked) if looks else None, held / count)


def print_errors(console: Console, count: int) -> None:
    """Print how often noise has a verdict."""
    heads = ("kind", "seeds", "ICC", "claims", "fixed", "looks from 2", "interval holds")
    table = Table(*heads, title="studies of noise with any verdict (5 % allowed)")
    for kind in ARMS:
        for seeds in (2, 3, 5, 8):
            for shared in (0.0, 0.5, 0.9) if kind in BY_SIZES else (0.0,):
                row = simulate(kind, seeds, shared, count)
                for claims in (1, 8, 30):
                    looked = "" if row.looked is None else any_verdict(row.looked, claims)
                    # The least step of an order is no effect that an interval could hold.
                    held = f"{row.held:.1%}" if claims == 1 and kind != "order" else ""
                    words = (kind, str(seeds), f"{shared:g}", str(claims))
                    table.add_row(*words, any_verdict(row.fixed, claims), looked, held)
    console.print(table)


def print_steps(console: Console, count: int) -> None:
    """Print the same of results in steps, from half a standard deviation of them to four."""
    heads = ("kind", "seeds", "step in deviations", "claims", "fixed", "looks from 2")
    table = Table(*heads, title="studies of noise in steps with any verdict (5 % allowed)")
    for kind in ARMS:
        for seeds in (2, 3, 5, 8):
            for step in (0.5, 1.0, 1.7, 4.0):
                row = simulate(kind, seeds, 0.0, count, step * SPREAD)
                for claims in (1, 30):
                    looked = "" if row.looked is None else any_verdict(row.looked, claims)
                    words = (kind, str(seeds), f"{step:g}", str(claims))
                    table.add_row(*words, any_verdict(row.fixed, claims), looked)
    console.print(table)


@dataclass(frozen=True)
class Found:
    """Planted effect that was looked for: predicted and simulated."""

    predicted: float
    found: float
    predicted_seeds: float
    seeds: float


def found_alone(claim: Claim, effect: float, seeds: int, count: int) -> tuple[float, float]:
    """Predict and measure how often seeds decide a claim, its effect in deviations of them."""
    rng = np.random.default_rng(3)
    aim = aim_of(claim, effect)
    found = sum(
        judged(claim, planted(values), None).decision == "supported"
        for values in (effect + rng.normal(size=(count, seeds))).tolist()
    )
    return power(effect, 1.0, seeds, aim=aim), found / count


def found_by_looks(claim: Claim, effect: float, looks: Looks, others: int, count: int) -> Found:
    """Predict and measure the same beside other claims, about noise, at every look."""
    rng = np.random.default_rng(3)
    noises = simulate("difference", looks.at_most, 0.0, count).looked
    assert noises is not None
    course = foresee(effect, 1.0, looks, LEVEL / (1 + others), aim_of(claim, effect))
    found, seeds = 0, 0.0
    for values in (effect + rng.normal(size=(count, looks.at_most))).tolist():
        beside = rng.choice(noises, others).tolist()
        decided = None
        # As a launch does: a look at each number of seeds until one decides.
        for n in range(looks.start, looks.at_most + 1):
            p = judged(claim, planted(values[:n]), looks).p
            assert p is not None
            if holm([p, *beside])[0] <= LEVEL:
                decided = n
                break
        found += decided is not None
        seeds += decided or looks.at_most
    return Found(1 - course.undecided[-1], found / count, course.seeds, seeds / count)


def planted(values: list[float]) -> Results:
    """Make the results of two settings that differ by this on each seed."""
    return {"1": dict.fromkeys(range(len(values)), 0.0), "2": dict(enumerate(values))}


def print_power(console: Console, count: int) -> None:
    """Print predicted and simulated power, with all seeds at once and seeds until decided."""
    heads = ("kind", "effect", "seeds", "power", "found")
    table = Table(*heads, title="planted effects, in deviations over seeds: all seeds at once")
    same = claim_of("equivalence", 2.0)
    plain = claim_of("difference")
    for claim, effects in ((plain, (0.5, 1.0, 2.0)), (same, (0.0, 1.0))):
        for effect in effects:
            for seeds in (3, 5, 8):
                predicted, found = found_alone(claim, effect, seeds, count)
                words = (claim.kind, f"{effect:g}", str(seeds))
                table.add_row(*words, f"{predicted:.1%}", f"{found:.1%}")
    console.print(table)
    heads = ("kind", "effect", "looks", "claims", "power", "found", "seeds foreseen", "seeds run")
    table = Table(*heads, title="planted effects: seeds until decided")
    for claim, effects in ((plain, (0.5, 1.0, 2.0)), (same, (0.0,))):
        for effect in effects:
            for looks in (Looks(start=2, at_most=5), Looks(start=3, at_most=8)):
                for others in (0, 7):
                    got = found_by_looks(claim, effect, looks, others, count)
                    table.add_row(
                        claim.kind,
                        f"{effect:g}",
                        f"{looks.start}–{looks.at_most}",
                        str(1 + others),
                        f"{got.predicted:.1%}",
                        f"{got.found:.1%}",
                        f"{got.predicted_seeds:.2f}",
                        f"{got.seeds:.2f}",
                    )
    console.print(table)


def main(count: int) -> None:
    """Print error rates, then power."""
    console = Console(width=110)
    # 20,000 claims are 667 studies of 30: a rate of 5 % has a standard error of .8 %.
    print_power(console, count // 4)
    print_errors(console, count)
    print_steps(console, count)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
