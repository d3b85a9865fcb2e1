"""Formulas of a sweep (`derive`, `where`, `solve`): expressions over keys and quantities.

They are read and checked here; `orchestration.sweep.grid.cells` evaluates them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Annotated

from pydantic import Field

from gigatok.config import TrialConfig
from orchestration.sweep.formulas.expressions import (
    WORDS,
    Expression,
    ExpressionError,
    Value,
    pointed,
    read_expression,
)
from orchestration.sweep.formulas.quantities import (
    Quantity,
    is_size_part,
    quantity,
    unknown_name,
)
from orchestration.sweep.settings.keys import report_taken, size_keys, trial_keys
from orchestration.yaml.parts import Part
from orchestration.yaml.source import Place, Problem, did_you_mean, listed, show
from orchestration.yaml.values import ValueType

SOLVE_KEYS = ("make", "equal", "within", "between")
SHARE_WITHIN = ValueType(Annotated[float, Field(ge=0, lt=1)])
WITHIN = 0.05
"""Relative deviation from its target that a solution may have, unless the sweep gives another."""
# Bounds of the search if the sweep gives none: far beyond any model or schedule.
LARGEST = 10**9
BETWEEN = {"layers": (1, 512), "width": (1, 65536)}


Evaluation = Callable[[Quantity, TrialConfig], Value]
"""Function that gives the value of a quantity for a trial."""


def computed(quantity: Quantity, trial: TrialConfig) -> Value:
    """Compute a quantity."""
    return quantity.of(trial)


@dataclass(frozen=True)
class Formula:
    """Checked expression of the sweep.

    Attributes:
        part: the formula as written, for messages.
        names: name in the expression -> its quantity, or the formula of a derived name.
        reads: config keys that the value depends on.
    """

    expression: Expression
    part: Part
    names: Mapping[str, Quantity | Formula] = field(repr=False)
    reads: frozenset[str] = field(repr=False)

    @property
    def text(self) -> str:
        """Text of the expression as written."""
        return self.expression.text

    def value(self, trial: TrialConfig, of: Evaluation = computed) -> Value:
        """Evaluate the formula for a trial.

        Args:
            trial: need not be validated.
            of: gives the value of a quantity, also to formulas that this one names.

        Raises:
            ExpressionError: the formula has no value for this trial.
        """
        names = self.names

        def lookup(name: str) -> Value:
            known = names[name]
            return known.value(trial, of) if isinstance(known, Formula) else of(known, trial)

        try:
            return self.expression.value(lookup)
        except ExpressionError:
            raise
        except ValueError as error:
            # A draft is not validated: the images that tell its classes may not be there.
            raise ExpressionError(str(error), 0) from error

    def problem(self, error: ExpressionError, about: str = "") -> Problem:
        """Describe an error of evaluation, at the place of the formula."""
        return _problem(self.part, self.text, error, about)


@dataclass(frozen=True)
class Solve:
    """Entry of `solve`: its key takes the whole number at which `make` comes to `equal`.

    Attributes:
        key: a whole-number key, or width or layers of a size.
        sets: the config key that changes: the size, if `key` is a part of one.
        make: must grow or fall with the key.
        within: largest relative deviation from the target.
        between: bounds of the search.
        part: the entry as written, for messages.
    """

    key: str
    sets: str
    make: Formula
    equal: Formula
    within: float
    between: tuple[int, int]
    part: Part

    @property
    def reads(self) -> frozenset[str]:
        """Config keys on which the solution depends."""
        # A part of a size is solved; the size's other parts still come from the trial.
        own = {self.sets} if self.sets != self.key else set()
        return (self.make.reads | self.equal.reads) - {self.sets} | own


@dataclass(frozen=True)
class Formulas:
    """Formulas of a sweep.

    Attributes:
        derive: name -> formula.
        where: conditions that a cell must meet.
        solve: ordered, so that each entry reads only what entries before it set.
    """

    derive: Mapping[str, Formula] = field(default_factory=dict)
    where: tuple[Formula, ...] = ()
    solve: tuple[Solve, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.derive or self.where or self.solve)

    def without(self, keys: Iterable[str]) -> Formulas:
        """Drop the entries of `solve` whose key `--set` gives."""
        gone = set(keys)
        kept = tuple(s for s in self.solve if s.sets not in gone and s.key not in gone)
        return replace(self, solve=kept)


def read_formulas(sweep: Part, taken: Mapping[str, Part]) -> Formulas:
    """Check `derive`, `where` and `solve`; keys that `axes`, `zip` or `set` give are `taken`."""
    # First: `where` and `solve` may use derived names.
    derive = _derived(sweep.part("derive"))
    example = " of expressions; write `- params.decoder > params.encoder`"
    found = [read_formula(part, derive) for part in sweep.part("where").numbered(example)]
    where = tuple(formula for formula in found if formula is not None)
    entries = sweep.part("solve").mapping().items()
    solves = [_solve(key, part, taken, derive) for key, part in entries]
    return Formulas(derive, where, _in_order([solve for solve in solves if solve is not None]))


def _derived(part: Part) -> dict[str, Formula]:
    """Read each derived name with its formula; formulas may use each other in any order."""
    parts = part.mapping("; write `ratio: params.decoder / params.encoder`")
    expressions: dict[str, Expression] = {}
    for name, item in parts.items():
        if not name.isidentifier() or name in WORDS:
            item.report_key("is no name; must be letters, digits and _, such as decoder_share")
        # A derived name must not hide a key or a quantity from the other formulas.
        elif quantity(name) is not None:
            item.report_key("is a name already; take another")
        elif (read := _read(item)) is not None:
            expressions[name] = read
    # Derived names only: config keys and quantities depend on no formula.
    graph = {name: set(e.names) & expressions.keys() for name, e in expressions.items()}
    try:
        order = list(TopologicalSorter(graph).static_order())
    # The cycle is reported against the arrows, as "reads"; the second argument lists it.
    except CycleError as error:
        circle = error.args[1]
        parts[circle[0]].report_key(f"depends on itself: {' -> '.join(reversed(circle))}")
        return {}
    found: dict[str, Formula] = {}
    for name in order:
        if formula := _checked(expressions[name], parts[name], found, parts):
            found[name] = formula
    # Back in the file's order, in which reports show the values.
    return {name: found[name] for name in parts if name in found}


def read_formula(part: Part, derived: Mapping[str, Formula]) -> Formula | None:
    """Read an expression over keys, quantities and derived names; None after a report."""
    expression = _read(part)
    return None if expression is None else _checked(expression, part, derived)


def _read(part: Part) -> Expression | None:
    if part.is_mapping or part.is_list or part.is_null:
        part.report_wrong("an expression, such as params.decoder / 1e6")
        return None
    plain = part.plain()
    # `solve: {equal: 1e15}` is a number for YAML, and an expression here.
    text = plain if isinstance(plain, str) else show(plain)
    try:
        return read_expression(text)
    except ExpressionError as error:
        part.problems.append(_problem(part, text, error))
        return None


def _problem(part: Part, text: str, error: ExpressionError, about: str = "") -> Problem:
    place, node = part.place, part.node
    at = f"character {error.position + 1}: "
    # A block of several lines has no single column for a position in its text.
    if node.text_column is not None:
        # The caret in the message and the column both point at the wrong word itself.
        place = Place(place.file, place.line, node.text_column + error.position)
        at = f"column {place.column}: "
    return Problem(place, part.key, at + error.text + about + pointed(text, error.position))


def _checked(
    expression: Expression,
    part: Part,
    derived: Mapping[str, Formula],
    declared: Collection[str] = (),
) -> Formula | None:
    """Resolve the names of an expression; None after unknown names were reported."""
    names: dict[str, Quantity | Formula] = {}
    wrong: list[ExpressionError] = []
    for name, position in expression.names.items():
        known = derived.get(name) or quantity(name)
        if known is not None:
            names[name] = known
        # A declared name without a formula has a problem of its own, which was reported.
        elif name not in declared:
            wrong.append(ExpressionError(unknown_name(name, derived), position))
    for comparison in expression.comparisons:
        key = trial_keys().get(comparison.name)
        choices = [] if key is None or key.is_size else key.kinds or key.schema.get("enum", [])
        allowed = [choice for choice in choices if isinstance(choice, str)]
        # A misspelt choice compares as false for ever, and would silently drop cells.
        if allowed and comparison.text not in allowed:
            text = f"{comparison.name} is never {show(comparison.text)}; it is one of "
            text += listed(map(show, allowed)) + did_you_mean(comparison.text, allowed)
            wrong.append(ExpressionError(text, comparison.position))
    part.problems.extend(_problem(part, expression.text, error) for error in wrong)
    if wrong or len(names) < len(expression.names):
        return None
    reads = frozenset[str]().union(*(known.reads for known in names.values()))
    return Formula(expression, part, names, reads)


def _solve(
    key: str, part: Part, taken: Mapping[str, Part], derived: Mapping[str, Formula]
) -> Solve | None:
    before = len(part.problems)
    part.mapping("; write `{make: flops.train, equal: 1e15}`")
    part.check_keys(SOLVE_KEYS, "an entry of solve")
    _check_key(key, part, taken)
    make, equal = (_side(part.part(name), key, derived) for name in SOLVE_KEYS[:2])
    within = part.part("within").read(SHARE_WITHIN, WITHIN, ", such as 0.02 for 2 %")
    between = _between(part.part("between"), key)
    # The sides are never None without a report; asked again for mypy.
    if len(part.problems) > before or make is None or equal is None:
        return None
    # A size is one config key, so solving for its layers sets the whole size.
    sets = key.rpartition(".")[0] if is_size_part(key) else key
    # Without the solved key in either side, no number is better than another.
    if sets not in make.reads | equal.reads:
        error = ExpressionError(f"does not depend on {key}, so that nothing can be solved", 0)
        part.problems.append(make.problem(error))
        return None
    return Solve(key, sets, make, equal, within, between, part)


def _side(part: Part, key: str, derived: Mapping[str, Formula]) -> Formula | None:
    if part.is_given:
        return read_formula(part, derived)
    part.report(f"missing; `make` an expression that changes with {key} `equal` a target")
    return None


def _check_key(key: str, part: Part, taken: Mapping[str, Part]) -> None:
    if key not in solvable_keys():
        text = "cannot be solved for; must be width or layers of a size, such as "
        text += "tokenizer.decoder.layers, or a whole-number key, such as tokenizer.steps"
        part.report_key(text + did_you_mean(key, solvable_keys()))
    report_taken(key, part, taken)


def solvable_keys() -> list[str]:
    """List the keys that `solve` may name: parts of sizes, and whole numbers except run-time."""
    keys = trial_keys().items()
    # Heads are left out: they follow from the width.
    sizes = [f"{n}.{part}" for n, key in keys if key.is_size for part in ("width", "layers")]
    free = ((name, key) for name, key in keys if not key.is_size and not key.is_runtime)
    return [*sizes, *(name for name, key in free if key.schema.get("type") == "integer")]


def _between(part: Part, key: str) -> tuple[int, int]:
    lowest, highest = _allowed(key)
    low, high = BETWEEN.get(key.rpartition(".")[2], (1, LARGEST))
    # Never beyond what the config itself allows.
    default = max(low, lowest), min(high, highest)
    given = default if part.is_null else part.plain()
    # `1e3` is a float for YAML, and a whole number here.
    match given:
        case (int() | float() as first, int() | float() as last) if (
            first % 1 == last % 1 == 0 and default[0] <= first < last <= default[1]
        ):
            return int(first), int(last)
    allowed = f"two whole numbers, the smaller first, from {default[0]} to {default[1]}"
    part.report_wrong(f"{allowed}, such as [1, 48]")
    return default


def _allowed(key: str) -> tuple[int, int]:
    """Return the smallest and the largest value that the config allows."""
    known = size_keys()[key.rpartition(".")[2]] if is_size_part(key) else trial_keys().get(key)
    if known is None or known.is_size:
        return 1, LARGEST
    above = known.schema.get("exclusiveMinimum")
    # JSON Schema gives "above 0" and "at least 1" by different words.
    low = known.schema.get("minimum", 1 if above is None else above + 1)
    return int(low), int(known.schema.get("maximum", LARGEST))


def _in_order(solves: list[Solve]) -> tuple[Solve, ...]:
    # Two parts of one size would overwrite each other's solution.
    by_key: dict[str, Solve] = {}
    for solve in solves:
        if solve.sets in by_key:
            text = f"changes {solve.sets}, as solve.{by_key[solve.sets].key} does; keep one"
            solve.part.report_key(text)
        by_key[solve.sets] = solve
    # An entry may read its own size, whose other parts it keeps.
    graph = {key: (solve.reads & by_key.keys()) - {key} for key, solve in by_key.items()}
    try:
        return tuple(by_key[key] for key in TopologicalSorter(graph).static_order())
    except CycleError as error:
        # The last of a circle is its first again.
        circle = [by_key[key] for key in error.args[1][:-1]]
        text = f"reads what {listed(f'solve.{s.key}' for s in circle[1:])} sets, which reads it"
        circle[0].part.report_key(text + "; write its target without it")
        return ()
