"""Evaluation of a sweep's formulas in each cell: `where` drops, `solve` and `derive` add values.

Each value is computed once per combination of the axes that it depends on. It is computed on a
draft of the trial that is not validated: a cell that `where` drops may be one that could not run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from gigatok.config import Config, TransformerSize, TrialConfig
from orchestration.sweep.formulas.expressions import ExpressionError, Value
from orchestration.sweep.formulas.formulas import Formula, Formulas, Solve
from orchestration.sweep.settings.keys import RANK_AXIS, Setting
from orchestration.yaml.source import Problem, show

Cell = tuple[int, ...]
"""Row number in each dimension."""
# Not None: `null` is a value that an expression may have.
_FAILED = object()


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


@dataclass(frozen=True)
class Judgement:
    """Values of the formulas in a cell; `dropped_by` is the expression that dropped it."""

    dropped_by: str | None = None
    solved: tuple[Solution, ...] = ()
    derived: Mapping[str, Value] | None = None


class Cells:
    """Apply `where`, `solve` and `derive` to each grid cell.

    Args:
        formulas: the formulas of the sweep.
        touching: maps config keys to the dimensions that give them, also through recipes.
        draft: returns the trial of a cell without `solve`, not validated; None if a value is
            missing.
        where: describes a cell in words, for messages.
        problems: receives formulas without a value, and targets that cannot be met.
    """

    def __init__(
        self,
        formulas: Formulas,
        touching: Callable[[Iterable[str]], frozenset[int]],
        draft: Callable[[Cell], TrialConfig | None],
        where: Callable[[Cell, Iterable[int]], str],
        problems: list[Problem],
    ) -> None:
        self._draft = draft
        self._where = where
        self._problems = problems
        self._touching = touching
        self._solved: dict[str, frozenset[int]] = {}
        # In the order of `solve`, in which each entry reads only what earlier entries set.
        for solve in formulas.solve:
            self._solved[solve.sets] = self.depends(solve.reads)
        # Conditions that no solution can change come first: a dropped cell needs no search.
        early = [f for f in formulas.where if not f.reads & self._solved.keys()]
        late = [f for f in formulas.where if f not in early]
        self._early = [(f.text, self._judged(f)) for f in early]
        self._late = [(f.text, self._judged(f)) for f in late]
        self._solves = [self._solving(solve) for solve in formulas.solve]
        self._derived = [(name, self._value(f)) for name, f in formulas.derive.items()]

    def depends(self, keys: Iterable[str]) -> frozenset[int]:
        """Return the dimensions on which the values of keys depend, also through `solve`."""
        found = self._touching(keys)
        return found.union(*(dims for key, dims in self._solved.items() if key in keys))

    def judge(self, cell: Cell) -> Judgement | None:
        """Evaluate the formulas in a cell; None after a problem was reported."""
        for text, holds in self._early:
            # A condition may also be `_FAILED`, which is neither kept nor dropped.
            if (kept := holds(cell)) is not True:
                return Judgement(text) if kept is False else None
        solved: list[Solution] = []
        for solve in self._solves:
            solution = solve(cell)
            if solution is _FAILED:
                return None
            solved.append(solution)
        for text, holds in self._late:
            if (kept := holds(cell)) is not True:
                return Judgement(text) if kept is False else None
        derived = {name: value(cell) for name, value in self._derived}
        return None if _FAILED in derived.values() else Judgement(None, tuple(solved), derived)

    def _once(self, dims: frozenset[int], compute: Callable[[Cell], Any]) -> Callable[[Cell], Any]:
        """Wrap `compute` so that it runs once per rows of the dimensions that matter."""
        known: dict[Any, Any] = {}
        pick = picker(dims)

        # The cache also holds `_FAILED`: each problem is reported once, not once per cell.
        def value(cell: Cell) -> Any:
            rows = pick(cell)
            if rows not in known:
                known[rows] = compute(cell)
            return known[rows]

        return value

    def _trial(self, cell: Cell, solves: int) -> TrialConfig | None:
        """Return the draft of a cell with the first `solves` entries of `solve` applied."""
        trial = self._draft(cell)
        for solve in self._solves[:solves]:
            solution = solve(cell)
            if trial is None or solution is _FAILED:
                return None
            trial = changed(trial, solution.setting.where, solution.setting.value)
        return trial

    def _value(self, formula: Formula) -> Callable[[Cell], Any]:
        dims = self.depends(formula.reads)

        def compute(cell: Cell) -> Value:
            trial = self._trial(cell, len(self._solves))
            if trial is None:
                return _FAILED
            try:
                return formula.value(trial)
            except ExpressionError as error:
                self._problems.append(formula.problem(error, self._where(cell, dims)))
                return _FAILED

        return self._once(dims, compute)

    def _judged(self, formula: Formula) -> Callable[[Cell], Any]:
        """Wrap `_value` for a condition, whose value must be true or false."""
        inner, dims = self._value(formula), self.depends(formula.reads)

        def compute(cell: Cell) -> Any:
            value = inner(cell)
            if value is _FAILED or isinstance(value, bool):
                return value
            error = ExpressionError(f"must be true or false, comes to {show(value)}", 0)
            self._problems.append(formula.problem(error, self._where(cell, dims)))
            return _FAILED

        return self._once(dims, compute)

    def _solving(self, solve: Solve) -> Callable[[Cell], Any]:
        dims = self._solved[solve.sets]

        def compute(cell: Cell) -> Any:
            # An entry may read only the entries before it, so its own place in the list counts.
            index = next(i for i, s in enumerate(self._solves) if s is remembered)
            trial = self._trial(cell, index)
            if trial is None:
                return _FAILED
            found = solve_for(solve, trial, self._where(cell, dims))
            if isinstance(found, Problem):
                self._problems.append(found)
                return _FAILED
            return found

        remembered = self._once(dims, compute)
        return remembered


def picker(dims: Iterable[int]) -> Callable[[Cell], Any]:
    """Return a function that reduces a cell to its rows in some dimensions."""
    # `itemgetter` takes no empty list; without dimensions there is one value for all cells.
    order = sorted(dims)
    return itemgetter(*order) if order else lambda cell: ()


def changed(config: Any, key: str, value: Any) -> Any:
    """Copy a config with another value for a dotted key; the copy is not validated."""
    head, _, rest = key.partition(".")
    return config.model_copy(
        update={head: changed(getattr(config, head), rest, value) if rest else value}
    )


def construct(kind: type[Config], values: Mapping[str, Any]) -> Config | None:
    """Build a config without validation; None if a required value is missing."""
    given: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        nested: Any = field.annotation
        if name not in values:
            if field.is_required():
                return None
        elif isinstance(values[name], dict) and issubclass(nested, Config):
            given[name] = construct(nested, values[name])
        else:
            given[name] = values[name]
    return (
        None if None in given.values() and _lacks(kind, given) else kind.model_construct(**given)
    )


def _lacks(kind: type[Config], given: Mapping[str, Any]) -> bool:
    """Tell whether a nested config, which is never null, could not be constructed."""
    fields = kind.model_fields
    nested = [n for n, v in given.items() if v is None and isinstance(fields[n].annotation, type)]
    return any(issubclass(fields[n].annotation, Config) for n in nested)  # type: ignore[arg-type]


def solve_for(solve: Solve, trial: TrialConfig, about: str) -> Solution | Problem:
    """Find the whole number whose result comes nearest to the target, or say why none is near."""
    search = _Search(solve, trial)
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
        return Problem(solve.place, f"solve.{solve.key}", text + about)
    value = search.value(best)
    setting = Setting(search.config_value(best), value, solve.place, solve.sets, RANK_AXIS)
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
