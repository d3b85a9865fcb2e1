"""What the formulas of a sweep say about each cell: dropped or kept, solved and derived values.

Each value is computed once per combination of the axes that it depends on, on a draft of the
trial that is not validated: a cell that `where` drops may be one that could not run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from gigatok.config import Config, TransformerSize, TrialConfig
from orchestration.sweep.config_keys import RANK_AXIS, Setting
from orchestration.sweep.expressions import ExpressionError, Value
from orchestration.sweep.formulas import Formula, Formulas, Solve
from orchestration.yaml.source import Problem, show

Cell = tuple[int, ...]
"""One row number per dimension."""
_FAILED = object()


@dataclass(frozen=True)
class Solution:
    """What `solve` found.

    Attributes:
        key: as in the sweep, such as `tokenizer.decoder.layers`.
        value: of the key.
        made: what `make` comes to with it.
        target: what `equal` comes to with it.
        setting: of the config key, for the trial.
    """

    key: str
    value: int
    made: float
    target: float
    setting: Setting

    @property
    def deviation(self) -> float:
        """Relative deviation from the target."""
        return _deviation(self.made, self.target)


@dataclass(frozen=True)
class Verdict:
    """What the formulas say of a cell; `dropped_by` is the expression that dropped it."""

    dropped_by: str | None = None
    solved: tuple[Solution, ...] = ()
    derived: Mapping[str, Value] | None = None


class Cells:
    """Judges cells.

    Args:
        formulas: of the sweep.
        touching: config keys -> the dimensions that give them, those of recipes included.
        draft: the trial of a cell without `solve`, not validated; None where a value is missing.
        where: a cell in words, for messages.
        problems: receives formulas that have no value and targets that cannot be met.
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
        for solve in formulas.solve:
            self._solved[solve.sets] = self.depends(solve.reads)
        early = [f for f in formulas.where if not f.reads & self._solved.keys()]
        late = [f for f in formulas.where if f not in early]
        self._early = [(f.text, self._judged(f)) for f in early]
        self._late = [(f.text, self._judged(f)) for f in late]
        self._solves = [self._solving(solve) for solve in formulas.solve]
        self._derived = [(name, self._value(f)) for name, f in formulas.derive.items()]

    def depends(self, keys: Iterable[str]) -> frozenset[int]:
        """The dimensions on which the values of keys depend, through `solve` as well."""
        found = self._touching(keys)
        return found.union(*(dims for key, dims in self._solved.items() if key in keys))

    def judge(self, cell: Cell) -> Verdict | None:
        """The verdict on a cell; None after reporting why there is none."""
        for text, holds in self._early:
            if (kept := holds(cell)) is not True:
                return Verdict(text) if kept is False else None
        solved: list[Solution] = []
        for solve in self._solves:
            solution = solve(cell)
            if solution is _FAILED:
                return None
            solved.append(solution)
        for text, holds in self._late:
            if (kept := holds(cell)) is not True:
                return Verdict(text) if kept is False else None
        derived = {name: value(cell) for name, value in self._derived}
        return None if _FAILED in derived.values() else Verdict(None, tuple(solved), derived)

    def _once(self, dims: frozenset[int], compute: Callable[[Cell], Any]) -> Callable[[Cell], Any]:
        """`compute`, remembered by the rows of the dimensions that matter."""
        known: dict[Any, Any] = {}
        pick = picker(dims)

        def value(cell: Cell) -> Any:
            rows = pick(cell)
            if rows not in known:
                known[rows] = compute(cell)
            return known[rows]

        return value

    def _trial(self, cell: Cell, solves: int) -> TrialConfig | None:
        """The draft of a cell with the first `solves` entries of `solve` in it."""
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
        """Like `_value`, which must be true or false."""
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
    """Reduces a cell to the rows of some dimensions."""
    order = sorted(dims)
    return itemgetter(*order) if order else lambda cell: ()


def changed(config: Any, key: str, value: Any) -> Any:
    """A copy of a config in which a dotted key has another value; not validated."""
    head, _, rest = key.partition(".")
    return config.model_copy(
        update={head: changed(getattr(config, head), rest, value) if rest else value}
    )


def construct(kind: type[Config], values: Mapping[str, Any]) -> Config | None:
    """A config that is not validated; None where a value is missing."""
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
    """Whether a nested config, which is never null, could not be constructed."""
    fields = kind.model_fields
    nested = [n for n, v in given.items() if v is None and isinstance(fields[n].annotation, type)]
    return any(issubclass(fields[n].annotation, Config) for n in nested)  # type: ignore[arg-type]


def solve_for(solve: Solve, trial: TrialConfig, about: str) -> Solution | Problem:
    """The whole number that comes nearest to the target, or why none comes near enough."""
    search = _Search(solve, trial)
    try:
        low, high = search.bracket()
    except ExpressionError as error:
        return search.problem(error, about)
    if low == high and search.is_constant:
        constant = ExpressionError(f"is the same for every {solve.key}: nothing to solve", 0)
        return solve.make.problem(constant, about)
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
    return made / target - 1 if target else float("inf")


class _Search:
    """Bisection, sped up by interpolation, on `make - equal` over whole numbers.

    A width is searched in whole heads of the width that the size's heads have.
    """

    def __init__(self, solve: Solve, trial: TrialConfig) -> None:
        self.solve = solve
        self.trial = trial
        self.known: dict[int, tuple[float, float]] = {}
        self.size: TransformerSize | None = None
        self.unit = 1
        if solve.sets != solve.key:
            section, _, name = solve.sets.partition(".")
            self.size = getattr(getattr(trial, section), name)
            if solve.key.endswith(".width"):
                self.unit = self.size.width // self.size.heads
        low, high = solve.between
        self.ends = -(-low // self.unit), max(high // self.unit, -(-low // self.unit))

    def value(self, x: int) -> int:
        """Of the key."""
        return x * self.unit

    def config_value(self, x: int) -> Any:
        """Of the config key: of a size the whole of it, without a letter."""
        if self.size is None:
            return x
        part = {"layers": x}
        if self.solve.key.endswith(".width"):
            part = {"width": x * self.unit, "heads": x}
        return self.size.model_copy(update={"name": "", **part})

    def sides(self, x: int) -> tuple[float, float]:
        """What `make` and `equal` come to."""
        if x not in self.known:
            trial = changed(self.trial, self.solve.sets, self.config_value(x))
            sides = []
            for formula in (self.solve.make, self.solve.equal):
                self.at = formula
                value = formula.value(trial)
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise ExpressionError(f"must be a number, comes to {show(value)}", 0)
                sides.append(value)
            self.known[x] = (sides[0], sides[1])
        return self.known[x]

    def problem(self, error: ExpressionError, about: str) -> Problem:
        """An error of the side that was computed last."""
        return self.at.problem(error, about)

    @property
    def is_constant(self) -> bool:
        """Whether both ends come to the same."""
        first, last = self.ends
        return first < last and self.known[first] == self.known[last]

    def gap(self, x: int) -> float:
        """How far above its target `make` is."""
        made, target = self.sides(x)
        return made - target

    def bracket(self) -> tuple[int, int]:
        """Neighbours between which the gap changes sign; twice the nearer end where it never does.

        Raises:
            ExpressionError: one of the sides has no value.
        """
        low, high = self.ends
        if (self.gap(low) > 0) == (self.gap(high) > 0):
            nearer = min((low, high), key=lambda x: abs(self.gap(x)))
            return nearer, nearer
        turn = 0
        while high - low > 1:
            middle = (low + high) // 2
            if turn % 3 < 2:
                share = self.gap(low) / (self.gap(low) - self.gap(high))
                middle = min(max(low + int(share * (high - low)), low + 1), high - 1)
            if (self.gap(middle) > 0) == (self.gap(low) > 0):
                low = middle
            else:
                high = middle
            turn += 1
        return low, high
