"""Search for the whole number at which one formula comes to the value of another (`solve`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gigatok.config import TransformerSize, TrialConfig
from orchestration.sweep.formulas.expressions import ExpressionError
from orchestration.sweep.formulas.formulas import Solve
from orchestration.sweep.settings.settings import RANK_AXIS, Setting
from orchestration.yaml.source import Problem, show


@dataclass(frozen=True)
class Solved:
    """Whole number that `solve` found for a key of a trial.

    Attributes:
        key: as in the sweep, such as `tokenizer.decoder.layers`.
        value: of the key.
        made: what `make` comes to with it.
        target: what `equal` comes to with it.
    """

    key: str
    value: int
    made: float
    target: float

    @property
    def deviation(self) -> float:
        """Relative deviation from the target."""
        return _deviation(self.made, self.target)


@dataclass(frozen=True)
class Solution(Solved):
    """Solved key with the setting that gives it to the trial."""

    setting: Setting


def changed(config: Any, key: str, value: Any) -> Any:
    """Copy a config with another value for a dotted key; the copy is not validated."""
    head, _, rest = key.partition(".")
    return config.model_copy(
        update={head: changed(getattr(config, head), rest, value) if rest else value}
    )


def solve_for(solve: Solve, trial: TrialConfig, about: str) -> Solution | Problem:
    """Find the whole number whose result comes nearest to the target, or say why none is near."""
    search, place = _Search(solve, trial), solve.part.node.key_place
    try:
        low, high = search.bracket()
    except ExpressionError as error:
        return search.problem(error, about)
    # One number only, and equal results at both ends: the key has no effect at all.
    if low == high and search.is_constant:
        constant = ExpressionError(f"is the same for every {solve.key}: nothing to solve", 0)
        return solve.make.problem(constant, about)
    # The target lies between two whole numbers; either may be nearer.
    best = min((low, high), key=lambda x: abs(_deviation(*search.sides(x))))
    made, target = search.sides(best)
    if abs(_deviation(made, target)) > solve.within:
        nearest = ", ".join(
            f"{search.value(x):,} gives {search.sides(x)[0]:.5g}"
            f" ({_deviation(*search.sides(x)):+.1%})"
            for x in sorted({low, high})
        )
        first, last = search.ends
        text = f"no whole number from {search.value(first):,} to {search.value(last):,} comes "
        text += f"within {solve.within:.2%} of {target:.5g}: {nearest}; "
        text += "change the target, or allow more with `within`"
        return Problem(place, solve.part.key, text + about)
    value = search.value(best)
    setting = Setting(search.config_value(best), value, place, solve.sets, RANK_AXIS)
    return Solution(solve.key, value, made, target, setting)


def _deviation(made: float, target: float) -> float:
    if made == target:
        return 0.0
    # A target of 0 has no relative deviation; only an exact hit counts.
    return made / target - 1 if target else float("inf")


class _Search:
    """Bisection, sped up by interpolation, on `make - equal` over whole numbers.

    A width is searched in whole heads, each as wide as the heads of the given size.
    """

    def __init__(self, solve: Solve, trial: TrialConfig) -> None:
        self.solve = solve
        self.trial = trial
        # Each evaluation may count the FLOPs of all stages, so none is repeated.
        self.known: dict[int, tuple[float, float]] = {}
        self.size: TransformerSize | None = None
        self.unit = 1
        if solve.sets != solve.key:
            section, _, name = solve.sets.partition(".")
            self.size = getattr(getattr(trial, section), name)
            if solve.key.endswith(".width"):
                self.unit = self.size.width // self.size.heads
        # In heads: the lower bound is rounded up and the upper one down, to stay within `between`.
        low, high = solve.between
        self.ends = -(-low // self.unit), max(high // self.unit, -(-low // self.unit))

    def value(self, x: int) -> int:
        """Convert the solver's unit (heads or layers) into the value of the solved key."""
        return x * self.unit

    def config_value(self, x: int) -> Any:
        """Convert the solver's unit into the value of the config key: for a size, a whole size."""
        if self.size is None:
            return x
        part = {"layers": x}
        if self.solve.key.endswith(".width"):
            part = {"width": x * self.unit, "heads": x}
        # Without its letter: S names the size of the scale, and this one has other numbers.
        return self.size.model_copy(update={"name": "", **part})

    def sides(self, x: int) -> tuple[float, float]:
        """Compute the values of `make` and `equal`."""
        if x not in self.known:
            trial = changed(self.trial, self.solve.sets, self.config_value(x))
            sides = []
            for formula in (self.solve.make, self.solve.equal):
                # Kept for `problem`, which must point into the side that raised.
                self.at = formula
                value = formula.value(trial)
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise ExpressionError(f"must be a number, comes to {show(value)}", 0)
                sides.append(value)
            self.known[x] = (sides[0], sides[1])
        return self.known[x]

    def problem(self, error: ExpressionError, about: str) -> Problem:
        """Describe an error in the side that was computed last."""
        return self.at.problem(error, about)

    @property
    def is_constant(self) -> bool:
        """True if both ends of the search give the same values."""
        first, last = self.ends
        return first < last and self.known[first] == self.known[last]

    def gap(self, x: int) -> float:
        """Compute by how much `make` exceeds its target."""
        made, target = self.sides(x)
        return made - target

    def bracket(self) -> tuple[int, int]:
        """Find neighbours between which the gap changes sign; twice the nearer end if none does.

        Raises:
            ExpressionError: one of the sides has no value.
        """
        low, high = self.ends
        # No change of sign: for a monotonic formula the nearest number is one of the ends.
        if (self.gap(low) > 0) == (self.gap(high) > 0):
            nearer = min((low, high), key=lambda x: abs(self.gap(x)))
            return nearer, nearer
        turn = 0
        while high - low > 1:
            middle = (low + high) // 2
            # Two steps of interpolation, then one of bisection: a width enters squared, and on a
            # curve interpolation alone can creep along one end.
            if turn % 3 < 2:
                share = self.gap(low) / (self.gap(low) - self.gap(high))
                middle = min(max(low + int(share * (high - low)), low + 1), high - 1)
            if (self.gap(middle) > 0) == (self.gap(low) > 0):
                low = middle
            else:
                high = middle
            turn += 1
        return low, high
