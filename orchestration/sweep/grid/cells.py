"""Evaluation of a sweep's formulas in each cell: `where` drops, `solve` and `derive` add values.

Each value is computed once per combination of the axes that it depends on. It is computed on a
draft of the trial that is not validated: a cell that `where` drops may be one that could not run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from gigatok.config import TrialConfig
from orchestration.sweep.formulas.expressions import ExpressionError, Value
from orchestration.sweep.formulas.formulas import Evaluation, Formula, Formulas, Solve
from orchestration.sweep.formulas.quantities import Quantity
from orchestration.sweep.formulas.solving import Solution, changed, solve_for
from orchestration.yaml.source import Problem, show

Cell = tuple[int, ...]
"""Row number in each dimension."""
# Not None: `null` is a value that an expression may have.
_FAILED = object()


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
        # A quantity mostly depends on fewer dimensions than the formulas that name it.
        self._quantities: dict[Quantity, dict[Any, Value]] = {}
        self._picks: dict[Quantity, Callable[[Cell], Any]] = {}
        # In the order of `solve`, in which each entry reads only what earlier entries set.
        for solve in formulas.solve:
            self._solved[solve.sets] = self.depends(solve.reads)
        # Conditions that no solution can change come first: a dropped cell needs no search.
        early = [f for f in formulas.where if not f.reads & self._solved.keys()]
        late = [f for f in formulas.where if f not in early]
        self._early = [(f.text, self._judged(f)) for f in early]
        self._late = [(f.text, self._judged(f)) for f in late]
        self._solves = [self._solving(n, solve) for n, solve in enumerate(formulas.solve)]
        self._derived = [(name, self._value(f)) for name, f in formulas.derive.items()]

    def depends(self, keys: Iterable[str]) -> frozenset[int]:
        """Return the dimensions on which the values of keys depend, also through `solve`."""
        found = self._touching(keys)
        return found.union(*(dims for key, dims in self._solved.items() if key in keys))

    def judge(self, cell: Cell) -> Judgement | None:
        """Evaluate the formulas in a cell; None after a problem was reported."""
        for text, holds in self._early:
            if (kept := holds(cell)) is not True:
                # `_FAILED` is neither kept nor dropped.
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
                return formula.value(trial, self._remembered(cell))
            except ExpressionError as error:
                self._problems.append(formula.problem(error, self._where(cell, dims)))
                return _FAILED

        return _Once(dims, compute)

    def _remembered(self, cell: Cell) -> Evaluation:
        """Make a function that gives quantities in a cell, each computed once per its own rows."""

        def of(quantity: Quantity, trial: TrialConfig) -> Value:
            if quantity not in self._picks:
                self._picks[quantity] = picker(self.depends(quantity.reads))
            known = self._quantities.setdefault(quantity, {})
            rows = self._picks[quantity](cell)
            if rows not in known:
                known[rows] = quantity.of(trial)
            return known[rows]

        return of

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

        return _Once(dims, compute)

    def _solving(self, index: int, solve: Solve) -> Callable[[Cell], Any]:
        dims = self._solved[solve.sets]

        def compute(cell: Cell) -> Any:
            # An entry may read only the entries before it.
            trial = self._trial(cell, index)
            if trial is None:
                return _FAILED
            found = solve_for(solve, trial, self._where(cell, dims))
            if isinstance(found, Problem):
                self._problems.append(found)
                return _FAILED
            return found

        return _Once(dims, compute)


class _Once:
    """Function of a cell that is computed once per rows of the dimensions that matter."""

    def __init__(self, dims: Iterable[int], compute: Callable[[Cell], Any]) -> None:
        self._pick = picker(dims)
        self._compute = compute
        # It also holds `_FAILED`: each problem is reported once, not once per cell.
        self._known: dict[Any, Any] = {}

    def __call__(self, cell: Cell) -> Any:
        rows = self._pick(cell)
        if rows not in self._known:
            self._known[rows] = self._compute(cell)
        return self._known[rows]


def picker(dims: Iterable[int]) -> Callable[[Cell], Any]:
    """Return a function that reduces a cell to its rows in some dimensions."""
    # `itemgetter` takes no empty list; without dimensions there is one value for all cells.
    order = sorted(dims)
    return itemgetter(*order) if order else lambda cell: ()
