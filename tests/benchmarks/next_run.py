"""GPU hours to an interval, by simulation: `python tests/benchmarks/next_run.py [STUDIES]`.

Studies of planted power laws over two decades of size; a run costs as much as its size. A uniform
grid gives every size equally many seeds: the sizes at each doubling, or one between any two of
them as well, which is all that `next` may choose from. Runs chosen as `next` does are bought in
rounds, each by the noise that the results so far show, until the interval at the largest size is
as narrow as the grid's. Widths are those of the planted noise, so that nobody stops at an estimate
that is small by luck; the share of intervals that hold the truth is of those that claims report.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable

import numpy as np
from rich.console import Console
from rich.table import Table

from gigatok.claims.claim import Arm, Claim
from gigatok.claims.design import UNKNOWN, Noise, Seeds, choose, noise_of, prediction_goal
from gigatok.claims.evidence import Floats, Results, weigh

DOUBLINGS = 7
"""From the smallest size to the largest, which is predicted: a factor of 128."""
SIZES = {f"{at:g}": 2.0**at for at in np.arange(0, DOUBLINGS + 0.5, 0.5)}
"""Sizes that may be run, by name."""
TARGET = f"{DOUBLINGS}"
GRIDS = {
    "doublings": [f"{at}" for at in range(DOUBLINGS)],
    "all sizes": [name for name in SIZES if name != TARGET],
}
NOISE = 0.03
"""Standard deviation of one run around the law, relatively."""
ROUNDS = 5
"""Parts of the grid's hours in which `next` gets its budget."""
WIDTHS = (1.1, 1.0)
"""Widths of the interval, over that of the grid, to which hours are counted: the last tenth of a
width that the misfit of sizes decides takes most of them."""
MOST_SEEDS = 50
MOST_GRIDS = 5
"""Grids whose hours are spent at most."""


def claim_of(settings: Iterable[str]) -> Claim:
    """Make the claim that the largest size is predicted by others."""
    arms = tuple(Arm(setting=name, x=SIZES[name]) for name in settings)
    return Claim(name="law", text="", kind="prediction", metric="m", margin=0.05, families=(arms,))


CLAIM = claim_of(SIZES)


class Study:
    """One planted law, with the result of every run that anyone might ask for."""

    def __init__(self, noise: Noise, rng: np.random.Generator) -> None:
        self.results: dict[str, dict[int, float]] = {}
        for name, size in SIZES.items():
            middle = -0.2 * math.log(size) + rng.normal() * math.sqrt(noise.sizes)
            own = middle + rng.normal(size=MOST_SEEDS) * math.sqrt(noise.seeds)
            self.results[name] = dict(enumerate(np.exp(own).tolist()))

    def of(self, have: Seeds) -> Results:
        """Return the results of runs."""
        return {name: {s: self.results[name][s] for s in seeds} for name, seeds in have.items()}


def hours(have: Seeds) -> float:
    """Sum the cost of runs; the largest size is not one of them."""
    return sum(SIZES[name] * len(seeds) for name, seeds in have.items())


def bought(
    study: Study, noise: Noise, grid: Seeds, seeds: int
) -> tuple[list[float], dict[str, frozenset[int]]]:
    """Buy runs in rounds until the planted noise makes the interval as narrow as the grid's.

    Returns:
        hours to each of `WIDTHS`, and the runs at the end. Of the step that gets there only the
        share of its hours that the wanted variance takes of it: a large run narrows the interval
        further than was asked for.
    """
    have: dict[str, frozenset[int]] = {}
    truth, budget = prediction_goal(CLAIM, noise, seeds), 0.0
    # In precision, which grows.
    wanted = [(factor * truth.state(grid)) ** -2 for factor in WIDTHS]
    spent: list[float] = []
    # What a round leaves is there for the next one: a large run may cost more than one round has.
    while budget < MOST_GRIDS * hours(grid):
        budget += hours(grid) / ROUNDS
        known = noise_of(CLAIM.families, study.of(have), math.log, math.log) or UNKNOWN
        goal = prediction_goal(CLAIM, known, seeds)
        spare = {n: [s for s in range(MOST_SEEDS) if s not in have.get(n, ())] for n in SIZES}
        del spare[TARGET]
        for step in choose([goal], have, spare, hours, budget - hours(have)):
            before = truth.state(have) ** -2
            for name, new in step.runs.items():
                have[name] = have.get(name, frozenset()) | set(new)
            after = truth.state(have) ** -2
            while after >= wanted[len(spent)]:
                rest = (after - wanted[len(spent)]) / (after - before)
                spent.append(hours(have) - rest * step.hours)
                if len(spent) == len(WIDTHS):
                    return spent, have
    # Not reached: counted with all that was there to spend, which is too little.
    return spent + [budget] * (len(WIDTHS) - len(spent)), have


def holds(study: Study, have: Seeds, seeds: int) -> bool:
    """Tell whether the interval that is reported holds what the largest size turns out to be."""
    runs = {**have, TARGET: frozenset(range(seeds))}
    names = [name for name in SIZES if runs.get(name)]
    evidence = weigh(claim_of(names), study.of(runs))
    assert evidence is not None
    low, high = evidence.interval(0.05)
    return low <= 0 <= high


def compare(grid: Seeds, noise: Noise, seeds: int, studies: int) -> tuple[Floats, Floats]:
    """Return of every study the hours over the grid's to each width, and whose intervals hold."""
    rng = np.random.default_rng(seeds)
    ratios, held = [], []
    for _ in range(studies):
        study = Study(noise, rng)
        spent, have = bought(study, noise, grid, seeds)
        ratios.append([one / hours(grid) for one in spent])
        held.append([holds(study, runs, seeds) for runs in (grid, have)])
    return np.array(ratios), np.array(held, float)


def main(studies: int) -> None:
    """Print a row for each grid, share of misfit and number of seeds, and means for each grid."""
    heads = ("grid", "misfit", "seeds", "its hours", *(f"x{width:g}" for width in WIDTHS))
    title = f"share of the grid's hours, by width of the interval over its; {studies} studies each"
    table = Table(*heads, "holds: grid", "next", title=title)
    lines = []
    for name, sizes in GRIDS.items():
        means, errors = [], []
        for share in (0.0, 0.5, 0.9):
            for seeds in (2, 3, 5):
                noise = Noise(share * NOISE**2, (1 - share) * NOISE**2)
                grid = {size: frozenset(range(seeds)) for size in sizes}
                ratios, held = compare(grid, noise, seeds, studies)
                means.append(ratios.mean(0))
                errors.append(ratios.std(0, ddof=1) / math.sqrt(studies))
                cells = (f"{m:.3f} ± {e:.3f}" for m, e in zip(means[-1], errors[-1], strict=True))
                shares = (f"{value:.1%}" for value in held.mean(0))
                numbers = (f"{share:g}", str(seeds), f"{hours(grid):.0f}")
                table.add_row(name, *numbers, *cells, *shares)
        # Rows are different cases: the error is that of the average over exactly these.
        both = zip(np.mean(means, 0), np.linalg.norm(errors, axis=0) / len(errors), strict=True)
        lines.append(f"{name}, on average: " + ", ".join(f"{m:.3f} ± {e:.3f}" for m, e in both))
    console = Console(width=110)
    console.print(table)
    console.print("\n".join(lines), highlight=False)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
