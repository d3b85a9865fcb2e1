"""Formulas of a sweep (`derive`, `where`, `solve`): expressions over keys and quantities.

They are read and checked here; `orchestration.sweep.cells` evaluates them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from orchestration.sweep.config_keys import Key, size_keys, trial_keys
from orchestration.sweep.expressions import (
    Expression,
    ExpressionError,
    Value,
    pointed,
    read_expression,
)
from orchestration.sweep.quantities import Quantity, is_size_part, quantity, unknown_name
from orchestration.yaml.source import (
    Node,
    Place,
    Problem,
    did_you_mean,
    entries,
    items,
    listed,
    show,
)

SOLVE_KEYS = ("make", "equal", "within", "between")
WITHIN = 0.05
"""Relative deviation from its target that a solution may have, unless the sweep gives another."""
# Bounds of the search if the sweep gives none: far beyond any model or schedule.
LARGEST = 10**9
BETWEEN = {"layers": (1, 512), "width": (1, 65536)}


@dataclass(frozen=True)
class Formula:
    """Checked expression of the sweep.

    Attributes:
        where: key of the formula, such as `derive.ratio`.
        names: name in the expression -> its quantity, or the formula of a derived name.
        reads: config keys that the value depends on.
    """

    expression: Expression
    node: Node
    where: str
    names: Mapping[str, Quantity | Formula] = field(repr=False)
    reads: frozenset[str] = field(repr=False)

    @property
    def text(self) -> str:
        """Text of the expression as written."""
        return self.expression.text

    def value(self, trial: Any) -> Value:
        """Evaluate the formula for a trial.

        Raises:
            ExpressionError: the formula has no value for this trial.
        """
        names = self.names

        def lookup(name: str) -> Value:
            known = names[name]
            # A derived name is computed again here; `Cells` caches by the keys that a formula
            # reads.
            return known.value(trial) if isinstance(known, Formula) else known.of(trial)

        return self.expression.value(lookup)

    def problem(self, error: ExpressionError, about: str = "") -> Problem:
        """Describe an error of evaluation, at the place of the formula."""
        return _problem(self.node, self.where, self.text, error, about)


@dataclass(frozen=True)
class Solve:
    """Entry of `solve`: its key takes the whole number at which `make` comes to `equal`.

    Attributes:
        key: a whole-number key, or width or layers of a size.
        sets: the config key that changes: the size, if `key` is a part of one.
        make: must grow or fall with the key.
        within: largest relative deviation from the target.
        between: bounds of the search.
    """

    key: str
    sets: str
    make: Formula
    equal: Formula
    within: float
    between: tuple[int, int]
    place: Place

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


def read_formulas(
    parts: Mapping[str, Node], taken: Mapping[str, Node], problems: list[Problem]
) -> Formulas:
    """Check `derive`, `where` and `solve`.

    Args:
        parts: the parts of the sweep.
        taken: keys that `axes`, `zip` and `set` give already.
        problems: receives what is wrong.
    """
    # First: `where` and `solve` may use derived names.
    derive = _derived(parts.get("derive"), problems)
    example = " of expressions; write `- params.decoder > params.encoder`"
    nodes = items(parts.get("where"), "where", problems, example)
    found = [_formula(n, f"where[{i}]", derive, problems) for i, n in enumerate(nodes)]
    where = tuple(formula for formula in found if formula is not None)
    solves = [
        _solve(key, node, taken, derive, problems)
        for key, node in entries(parts.get("solve"), "solve", problems).items()
    ]
    known = [solve for solve in solves if solve is not None]
    return Formulas(derive, where, _in_order(known, problems))


def _derived(node: Node | None, problems: list[Problem]) -> dict[str, Formula]:
    """Read each derived name with its formula; formulas may use each other in any order."""
    nodes = entries(node, "derive", problems, "; write `ratio: params.decoder / params.encoder`")
    expressions: dict[str, Expression] = {}
    for name, item in nodes.items():
        if not name.isidentifier() or name in ("and", "or", "not", "in", "true", "false", "null"):
            text = "is no name; must be letters, digits and _, such as decoder_share"
            problems.append(Problem(item.key_place, f"derive.{name}", text))
        # A derived name must not hide a key or a quantity from the other formulas.
        elif quantity(name) is not None:
            text = "is a name already; take another"
            problems.append(Problem(item.key_place, f"derive.{name}", text))
        elif (read := _read(item, f"derive.{name}", problems)) is not None:
            expressions[name] = read
    # Derived names only: config keys and quantities depend on no formula.
    graph = {name: set(e.names) & expressions.keys() for name, e in expressions.items()}
    try:
        order = list(TopologicalSorter(graph).static_order())
    # The cycle is reported against the arrows, as "reads"; the second argument lists it.
    except CycleError as error:
        circle = error.args[1]
        text = f"depends on itself: {' -> '.join(reversed(circle))}"
        problems.append(Problem(nodes[circle[0]].key_place, f"derive.{circle[0]}", text))
        return {}
    found: dict[str, Formula] = {}
    for name in order:
        formula = _checked(
            expressions[name], nodes[name], f"derive.{name}", found, problems, nodes
        )
        if formula is not None:
            found[name] = formula
    # Back in the file's order, in which reports show the values.
    return {name: found[name] for name in nodes if name in found}


def _formula(
    node: Node, where: str, derived: Mapping[str, Formula], problems: list[Problem]
) -> Formula | None:
    expression = _read(node, where, problems)
    return None if expression is None else _checked(expression, node, where, derived, problems)


def _read(node: Node, where: str, problems: list[Problem]) -> Expression | None:
    plain = node.plain()
    if isinstance(plain, dict | list) or plain is None:
        text = f"got {show(plain)}; must be an expression, such as params.decoder / 1e6"
        problems.append(Problem(node.place, where, text))
        return None
    # `solve: {equal: 1e15}` is a number for YAML, and an expression here.
    text = plain if isinstance(plain, str) else show(plain)
    try:
        return read_expression(text)
    except ExpressionError as error:
        problems.append(_problem(node, where, text, error))
        return None


def _problem(
    node: Node, where: str, text: str, error: ExpressionError, about: str = ""
) -> Problem:
    column = node.place.column
    if column is not None and node.text_column is not None:
        # The caret in the message and the column both point at the wrong word itself.
        column = node.text_column + error.position
        place = Place(node.place.file, node.place.line, column)
        at = f"column {column}: "
    # A block of several lines has no single column for a position in its text.
    else:
        place, at = node.place, f"character {error.position + 1}: "
    return Problem(place, where, at + error.text + about + pointed(text, error.position))


def _checked(
    expression: Expression,
    node: Node,
    where: str,
    derived: Mapping[str, Formula],
    problems: list[Problem],
    declared: Iterable[str] = (),
) -> Formula | None:
    """Resolve the names of an expression; None after unknown names were reported."""
    names: dict[str, Quantity | Formula] = {}
    before = len(problems)
    for name, position in expression.names.items():
        known = derived.get(name) or quantity(name)
        if known is not None:
            names[name] = known
        # A declared name without a formula has a problem of its own, which was reported.
        elif name not in declared:
            error = ExpressionError(unknown_name(name, derived), position)
            problems.append(_problem(node, where, expression.text, error))
    for comparison in expression.comparisons:
        key = trial_keys().get(comparison.name)
        allowed = [] if key is None or key.is_size else _choices(key)
        # A misspelt choice compares as false for ever, and would silently drop cells.
        if allowed and comparison.text not in allowed:
            text = f"{comparison.name} is never {show(comparison.text)}; it is one of "
            text += listed(map(show, allowed)) + did_you_mean(comparison.text, allowed)
            error = ExpressionError(text, comparison.position)
            problems.append(_problem(node, where, expression.text, error))
    if len(problems) > before or len(names) < len(expression.names):
        return None
    reads = frozenset[str]().union(*(known.reads for known in names.values()))
    return Formula(expression, node, where, names, reads)


def _choices(key: Key) -> list[str]:
    items = key.kinds or key.schema.get("enum", ())
    return [item for item in items if isinstance(item, str)]


def _solve(
    key: str,
    node: Node,
    taken: Mapping[str, Node],
    derived: Mapping[str, Formula],
    problems: list[Problem],
) -> Solve | None:
    where, before = f"solve.{key}", len(problems)
    parts = entries(node, where, problems, "; write `{make: flops.train, equal: 1e15}`")
    for name, item in parts.items():
        if name not in SOLVE_KEYS:
            text = f"unknown key; an entry of solve has {listed(SOLVE_KEYS)}"
            text += did_you_mean(name, SOLVE_KEYS)
            problems.append(Problem(item.key_place, f"{where}.{name}", text))
    sides = []
    for name in ("make", "equal"):
        if name not in parts:
            text = f"missing; `make` an expression that changes with {key} `equal` a target"
            problems.append(Problem(node.place, f"{where}.{name}", text))
        else:
            sides.append(_formula(parts[name], f"{where}.{name}", derived, problems))
    _check_key(key, node, taken, where, problems)
    within = _within(parts.get("within"), where, problems)
    between = _between(parts.get("between"), key, where, problems)
    if len(problems) > before or None in sides:
        return None
    # A size is one config key, so solving for its layers sets the whole size.
    sets = key.rpartition(".")[0] if is_size_part(key) else key
    make, equal = sides
    # For mypy: a missing side has returned above.
    assert make is not None
    assert equal is not None
    # Without the solved key in either side, no number is better than another.
    if sets not in make.reads | equal.reads:
        error = ExpressionError(f"does not depend on {key}, so that nothing can be solved", 0)
        problems.append(make.problem(error))
        return None
    return Solve(key, sets, make, equal, within, between, node.key_place)


def _check_key(
    key: str, node: Node, taken: Mapping[str, Node], where: str, problems: list[Problem]
) -> None:
    if key not in solvable_keys():
        text = "cannot be solved for; must be width or layers of a size, such as "
        text += "tokenizer.decoder.layers, or a whole-number key, such as tokenizer.steps"
        problems.append(Problem(node.key_place, where, text + did_you_mean(key, solvable_keys())))
    if key in taken:
        text = f"given twice; line {taken[key].key_place.line} has it already; keep one"
        problems.append(Problem(node.key_place, where, text))


def solvable_keys() -> list[str]:
    """List the keys that `solve` may name: parts of sizes, and whole numbers except run-time."""
    sizes = [name for name, key in trial_keys().items() if key.is_size]
    whole = [
        name
        for name, key in trial_keys().items()
        if not key.is_size and not key.is_runtime and key.schema.get("type") == "integer"
    ]
    # Heads are left out: they follow from the width.
    return [*(f"{name}.{part}" for name in sizes for part in ("width", "layers")), *whole]


def _within(node: Node | None, where: str, problems: list[Problem]) -> float:
    value = WITHIN if node is None else node.plain()
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        assert node is not None
        text = f"got {show(value)}; must be a number from 0 to below 1, such as 0.02 for 2 %"
        problems.append(Problem(node.place, f"{where}.within", text))
        return WITHIN
    return float(value)


def _between(node: Node | None, key: str, where: str, problems: list[Problem]) -> tuple[int, int]:
    default = BETWEEN.get(key.rpartition(".")[2], (1, LARGEST))
    low, high = _allowed(key)
    # Never beyond what the config itself allows.
    default = (max(default[0], low), min(default[1], high))
    value = default if node is None else node.plain()
    whole = isinstance(value, list | tuple) and len(value) == 2
    # `1e3` is a float for YAML, and a whole number here.
    whole = whole and all(isinstance(v, int | float) and v == int(v) for v in value)
    if not whole or not default[0] <= value[0] < value[1] <= default[1]:
        assert node is not None
        text = f"got {show(value)}; must be two whole numbers, the smaller first, from "
        text += f"{default[0]} to {default[1]}, such as [1, 48]"
        problems.append(Problem(node.place, f"{where}.between", text))
        return default
    return int(value[0]), int(value[1])


def _allowed(key: str) -> tuple[int, int]:
    """Return the smallest and the largest value that the config allows."""
    known = size_keys()[key.rpartition(".")[2]] if is_size_part(key) else trial_keys().get(key)
    if known is None or known.is_size:
        return 1, LARGEST
    above = known.schema.get("exclusiveMinimum")
    # JSON Schema gives "above 0" and "at least 1" by different words.
    low = known.schema.get("minimum", 1 if above is None else above + 1)
    return int(low), int(known.schema.get("maximum", LARGEST))


def _in_order(solves: list[Solve], problems: list[Problem]) -> tuple[Solve, ...]:
    # Two parts of one size would overwrite each other's solution.
    by_key: dict[str, Solve] = {}
    for solve in solves:
        if solve.sets in by_key:
            text = f"changes {solve.sets}, as solve.{by_key[solve.sets].key} does; keep one"
            problems.append(Problem(solve.place, f"solve.{solve.key}", text))
        by_key[solve.sets] = solve
    graph = {
        # An entry may read its own size, whose other parts it keeps.
        key: {k for k in solve.reads & by_key.keys() if k != key}
        for key, solve in by_key.items()
    }
    try:
        return tuple(by_key[key] for key in TopologicalSorter(graph).static_order())
    except CycleError as error:
        # The last of a circle is its first again.
        circle = [by_key[key] for key in error.args[1][:-1]]
        text = f"reads what {listed(f'solve.{s.key}' for s in circle[1:])} sets, which reads it"
        text += "; write its target without it"
        problems.append(Problem(circle[0].place, f"solve.{circle[0].key}", text))
        return ()
