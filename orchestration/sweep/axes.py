"""Axes of a sweep: `axes`, `zip`, `exclude`, `include`, `set`, seeds, and `--set` over them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gigatok.plugins import Plugin, owner_of
from gigatok.stages import STAGES
from orchestration.sweep.config_keys import (
    MAX_WHOLE,
    RANK_AXIS,
    RANK_OVERRIDE,
    RANK_SET,
    Checker,
    Setting,
    trial_keys,
)
from orchestration.sweep.expansion import (
    MAX_TRIALS,
    SEED,
    Block,
    Dimension,
    Expansion,
    Rule,
    count,
    expand_cells,
)
from orchestration.sweep.formulas import Formulas, read_formulas
from orchestration.sweep.scales import Scale
from orchestration.sweep.selection import (
    Choices,
    Included,
    read_exclude,
    read_include,
    report_lacking,
    report_repeats,
    report_runtime,
)
from orchestration.yaml.source import (
    Node,
    Place,
    Problem,
    SweepError,
    did_you_mean,
    entries,
    items,
    listed,
    parse,
    show,
)

NO_EXPANSION = Expansion((), ())


@dataclass(frozen=True)
class Overrides:
    """Values of `--set`: checked settings, the seed if given, and everything as written."""

    settings: dict[str, Setting] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    seed: Node | None = None


@dataclass(frozen=True)
class Axes:
    """Checked axes of a sweep, with `--set` applied.

    Attributes:
        axes: key -> its choices.
        groups: zip groups, each key -> choices of equal number.
        included: cells to add; without axes they are all cells.
        rules: cells to drop.
        formulas: `derive`, `where` and `solve`.
        fixed: `set`, and values of `--set` that replace no axis.
    """

    axes: Choices
    groups: tuple[Choices, ...]
    included: tuple[Included, ...]
    rules: tuple[Rule, ...]
    fixed: dict[str, Setting]
    formulas: Formulas
    written_exclude: tuple[Mapping[str, Any], ...]
    written_set: Mapping[str, Any]

    @property
    def written_axes(self) -> Mapping[str, tuple[Any, ...]]:
        """Axes as the file and `--set` write them."""
        return _written(self.axes)

    @property
    def written_zip(self) -> tuple[Mapping[str, tuple[Any, ...]], ...]:
        """Zip groups as the file and `--set` write them."""
        return tuple(_written(group) for group in self.groups)

    @property
    def written_include(self) -> tuple[Mapping[str, tuple[Any, ...]], ...]:
        """Entries of `include` as the file and `--set` write them."""
        return tuple(_written(entry.choices) for entry in self.included)

    @property
    def varied(self) -> tuple[str, ...]:
        """Keys of axes, zip groups and `include`, in this order."""
        grouped = (key for group in self.groups for key in group)
        added = (key for entry in self.included for key in entry.choices)
        return tuple(dict.fromkeys((*self.axes, *grouped, *added)))

    def _place(self) -> Place:
        """Find the place of the first axis, for problems of all axes together."""
        grids = (self.axes, *self.groups, *(entry.choices for entry in self.included))
        choices = [row for grid in grids for row in grid.values()]
        return choices[0][0].place if choices else Place("seeds")

    def blocks(self, seeds: Sequence[int]) -> tuple[Block, ...]:
        """Build the product of axes and zip groups, if any, then each entry of `include`.

        The seeds are the last dimension of each block.
        """
        # Seeds vary fastest, so the trials of one setting stand side by side in the plan.
        seed_rows = [{SEED: Setting(s, s, Place("seeds"), "seeds", RANK_AXIS)} for s in seeds]
        # A sweep of `include` alone has no product; without any of the three it is one trial.
        axes = [_columns(self.axes)] if self.axes or self.groups or not self.included else []
        grids = [[*columns, *map(_rows, self.groups)] for columns in axes]
        grids += [_columns(entry.choices) for entry in self.included]
        return tuple(
            tuple(Dimension(tuple(rows)) for rows in (*grid, seed_rows)) for grid in grids
        )

    def expand(
        self, seeds: Sequence[int], scale: Scale | None, problems: list[Problem]
    ) -> Expansion:
        """Expand to all trials; problems of combinations are added to those found so far."""
        if scale is None or not seeds:
            return NO_EXPANSION
        report_lacking(self.included, self.varied, self.fixed, scale, problems)
        # After a problem, axes that were left out make other values look wrong or missing. Then
        # only problems that hold in any case are reported.
        sound = not problems
        blocks = self.blocks(seeds)
        # Counted before any cell is built: an axis with a typing error is refused at once.
        cells = count(blocks)
        if cells > MAX_TRIALS:
            text = f"{cells:,} trials; at most {MAX_TRIALS:,}; shorten an axis or split the sweep"
            problems.append(Problem(self._place(), "axes", text))
            return NO_EXPANSION
        _check_rules(self.rules, blocks[0], problems if sound else [])
        found: list[Problem] = []
        expansion = expand_cells(blocks, self.rules, scale, self.fixed, self.formulas, found)
        problems += [problem for problem in found if sound or "missing" not in problem.text]
        # Only after a sound run is it certain that rules, and not problems, removed every cell.
        if sound and not expansion.trials and not problems:
            part = "where" if expansion.dropped else "exclude"
            place = self.formulas.where[0].node.place if part == "where" else self.rules[0].place
            text = f"all {cells} combinations are excluded; leave at least one"
            problems.append(Problem(place, part, text))
        return expansion


def _columns(choices: Choices) -> list[list[dict[str, Setting]]]:
    return [[{key: choice} for choice in row] for key, row in choices.items()]


def _written(choices: Choices) -> dict[str, tuple[Any, ...]]:
    return {key: tuple(choice.written for choice in row) for key, row in choices.items()}


def _rows(group: Choices) -> list[dict[str, Setting]]:
    """Make one dict per row of a zip group; rows that `--set` made equal are merged."""
    rows: list[dict[str, Setting]] = []
    seen: list[list[Any]] = []
    for settings in zip(*group.values(), strict=True):
        # Only `--set` can make rows equal: the file's own rows were checked to differ.
        values = [setting.value for setting in settings]
        if values not in seen:
            seen.append(values)
            rows.append(dict(zip(group, settings, strict=True)))
    return rows


def _check_rules(
    rules: Sequence[Rule], dimensions: Sequence[Dimension], problems: list[Problem]
) -> None:
    for rule in rules:
        # A rule that matches nothing is most likely a typing error, which would run unwanted
        # cells.
        if not all(rule.rows(dimension) for dimension in dimensions):
            given = ", ".join(
                # A size is shown by its letter, as the file names it.
                f"{key}: {' or '.join(show(getattr(v, 'name', None) or v) for v in values)}"
                for key, values in rule.values.items()
            )
            text = f"{given} matches no combination of the axes; remove it or correct its values"
            problems.append(Problem(rule.place, "exclude", text))


def read_overrides(
    texts: Sequence[str], scale: Scale | None, problems: list[Problem]
) -> Overrides:
    """Check `--set key=value`; values are YAML, as in a sweep."""
    found = Overrides()
    checker = _checker(scale, problems)
    seed: Node | None = None
    for text in texts:
        key, equals, value = text.partition("=")
        key, place = key.strip(), Place(f"--set {text}")
        if not equals or not key:
            problems.append(Problem(place, "", "must be key=value, such as tokenizer.lr=1e-3"))
            continue
        if key in found.written:
            problems.append(Problem(place, key, "given twice; keep one"))
        node = _override_value(value, place, problems)
        if node is None:
            continue
        found.written[key] = node.plain()
        # The seed is a dimension and no key of the config; `read_seeds` expects a list.
        if key == SEED:
            seed = Node((node,), place, place)
        elif setting := checker.setting(key, node, key, RANK_OVERRIDE):
            found.settings[key] = setting
    return Overrides(found.settings, found.written, seed)


def _override_value(text: str, place: Place, problems: list[Problem]) -> Node | None:
    try:
        # `--set key=` is null, as an empty value is in YAML.
        return parse(text, place, problems) or Node(None, place, place)
    except SweepError as error:
        problems.extend(error.problems)
        return None


def _checker(scale: Scale | None, problems: list[Problem]) -> Checker:
    # Without a scale the names of sizes are unknown; all other values are checked all the same.
    if scale is None:
        return Checker(problems, "", None, None)
    return Checker(problems, scale.name, scale.sizes, scale.generator_sizes)


def read_axes(
    parts: Mapping[str, Node],
    scale: Scale | None,
    overrides: Mapping[str, Setting],
    problems: list[Problem],
) -> Axes:
    """Check `axes`, `zip`, `exclude`, `include` and `set`, and apply `--set` to them."""
    checker = _checker(scale, problems)
    taken: dict[str, Node] = {}
    # `set` first: `taken` lets a key that is given twice be reported at its later place.
    fixed_nodes = entries(parts.get("set"), "set", problems, "; write `key: value`")
    fixed = _fixed(fixed_nodes, checker, taken)
    axes = _choices(parts.get("axes"), "axes", checker, taken)
    groups = _groups(parts.get("zip"), checker, taken)
    # An axis shrinks to the one value; a zip group keeps its rows, for its other keys.
    axes = {key: _overridden(key, row, overrides) for key, row in axes.items()}
    groups = tuple(
        {key: _overridden(key, row, overrides, repeat=True) for key, row in group.items()}
        for group in groups
    )
    varied = {*axes, *(key for group in groups for key in group)}
    # A value of `--set` for a key that nothing varies is like one of `set`.
    fixed |= {key: setting for key, setting in overrides.items() if key not in varied}
    declared = [key for key in taken if key not in fixed_nodes and key in trial_keys()]
    # `exclude` may name only what varies: a rule on a fixed key drops all cells or none.
    rules, written = read_exclude(parts.get("exclude"), checker, declared)
    solved = entries(parts.get("solve"), "solve", [])
    included = read_include(parts.get("include"), checker, solved)
    included = tuple(entry.overridden(overrides) for entry in included)
    formulas = read_formulas(parts, taken, problems).without(overrides)
    written_set = {key: node.plain() for key, node in fixed_nodes.items()}
    return Axes(axes, groups, included, rules, fixed, formulas, written, written_set)


def _overridden(
    key: str, choices: tuple[Setting, ...], overrides: Mapping[str, Setting], repeat: bool = False
) -> tuple[Setting, ...]:
    if key not in overrides:
        return choices
    return (overrides[key],) * (len(choices) if repeat else 1)


def _fixed(
    nodes: Mapping[str, Node], checker: Checker, taken: dict[str, Node]
) -> dict[str, Setting]:
    fixed: dict[str, Setting] = {}
    for key, node in nodes.items():
        taken[key] = node
        setting = checker.setting(key, node, f"set.{key}", RANK_SET)
        if setting is not None:
            fixed[key] = setting
    return fixed


def _choices(node: Node | None, where: str, checker: Checker, taken: dict[str, Node]) -> Choices:
    """Read the axes of one mapping; axes with a problem are left out."""
    example = "; write `tokenizer.decoder: [S, B]`"
    choices: Choices = {}
    for key, values in entries(node, where, checker.problems, example).items():
        place = f"{where}.{key}"
        if key in taken:
            text = f"given twice; line {taken[key].key_place.line} has it already; keep one"
            checker.problems.append(Problem(values.key_place, place, text))
        row = _axis(key, values, place, checker)
        if row and key not in taken:
            choices[key] = row
        taken.setdefault(key, values)
    return choices


def _axis(key: str, node: Node, where: str, checker: Checker) -> tuple[Setting, ...]:
    """Read the choices of an axis; empty after a problem was reported."""
    problems = checker.problems
    known = trial_keys().get(key)
    if known is None:
        # An unknown key: the checker reports it with the nearest known ones.
        checker.setting(key, node, where, RANK_AXIS)
        return ()
    if known.is_runtime:
        report_runtime(node, where, problems)
        return ()
    if not isinstance(node.value, tuple):
        given = show(node.plain())
        example = given.strip("'")
        text = f"got {given}; must be a list of values, such as [{example}]"
        problems.append(Problem(node.place, where, text))
        return ()
    if not node.value:
        problems.append(Problem(node.place, where, "is empty; give at least one value"))
    before = len(problems)
    settings = [checker.setting(key, item, where, RANK_AXIS) for item in node.value]
    found = tuple(setting for setting in settings if setting is not None)
    report_repeats(found, where, problems)
    # None rather than the sound part: a shorter axis would give wrong counts in later messages.
    return found if len(problems) == before else ()


def _groups(node: Node | None, checker: Checker, taken: dict[str, Node]) -> tuple[Choices, ...]:
    example = " of mappings; write `- {tokenizer.encoder: [S, B], tokenizer.decoder: [B, L]}`"
    groups: list[Choices] = []
    for index, item in enumerate(items(node, "zip", checker.problems, example)):
        where = f"zip[{index}]"
        group = _zip_columns(item, where, checker, taken)
        if group:
            groups.append(group)
    return tuple(groups)


def _zip_columns(node: Node, where: str, checker: Checker, taken: dict[str, Node]) -> Choices:
    problems = checker.problems
    columns = entries(node, where, problems)
    before = len(problems)
    lists = {k: c.value for k, c in columns.items() if isinstance(c.value, tuple)}
    lengths = {key: len(values) for key, values in lists.items()}
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        text = f"{given} values; keys that vary together need equally many"
        problems.append(Problem(node.place, where, text))
    group: Choices = {}
    for key, column in columns.items():
        if key in taken:
            text = f"given twice; line {taken[key].key_place.line} has it already; keep one"
            problems.append(Problem(column.key_place, f"{where}.{key}", text))
        taken.setdefault(key, column)
        group[key] = _column(key, column, f"{where}.{key}", checker)
    if len(problems) > before or len({len(row) for row in group.values()}) > 1:
        return {}  # without a scale, sizes have no meaning, so columns of sizes are empty
    _report_repeated_rows(group, where, node.place, problems)
    return group if len(problems) == before else {}


def _column(key: str, node: Node, where: str, checker: Checker) -> tuple[Setting, ...]:
    """Read a column of a zip group; unlike in an axis, a value may repeat."""
    if not isinstance(node.value, tuple) or not node.value or key not in trial_keys():
        return _axis(key, node, where, checker)
    if trial_keys()[key].is_runtime:
        return _axis(key, node, where, checker)
    settings = [checker.setting(key, item, where, RANK_AXIS) for item in node.value]
    return tuple(setting for setting in settings if setting is not None)


def _report_repeated_rows(
    group: Choices, where: str, place: Place, problems: list[Problem]
) -> None:
    rows = [
        # By `repr`: 1, 1.0 and true are equal in Python, but are three values.
        tuple(repr(setting.value) for setting in row)
        for row in zip(*group.values(), strict=True)
    ]
    repeats = [index for index, row in enumerate(rows) if row in rows[:index]]
    for index in repeats:
        given = show({key: choices[index].written for key, choices in group.items()})
        problems.append(Problem(place, where, f"row {given} is given twice; rows must differ"))


def read_seeds(
    node: Node | None, override: Node | None, problems: list[Problem]
) -> tuple[int, ...]:
    """Read the seeds, `[0]` by default; empty after a problem was reported."""
    if override is None and node is None:
        return (0,)
    given = override or node
    before = len(problems)
    seeds: list[int] = []
    for item in items(given, "seeds", problems, " of whole numbers; write `seeds: [0, 1]`"):
        seed = item.plain()
        is_whole = isinstance(seed, int) and not isinstance(seed, bool)
        if not is_whole or not 0 <= seed <= MAX_WHOLE:
            text = f"got {show(seed)}; must be a whole number of at least 0, at most {MAX_WHOLE}"
            problems.append(Problem(item.place, "seeds", text))
        elif seed in seeds:
            problems.append(Problem(item.place, "seeds", f"got {seed} twice; seeds must differ"))
        else:
            seeds.append(seed)
    if given is not None and not seeds and len(problems) == before:
        problems.append(Problem(given.place, "seeds", "is empty; give at least one, such as [0]"))
    return tuple(seeds) if len(problems) == before else ()


def read_stages(
    node: Node | None, problems: list[Problem], plugins: Collection[Plugin] = ()
) -> tuple[str, ...]:
    """Read the requested stages in graph order.

    `all`, or a missing list, means every stage of this program and of the plug-ins that the sweep
    names: one that is merely installed must not change what sweeps mean.
    """
    if node is None or node.value == "all":
        return tuple(s for s in STAGES if owner_of("stage", s) in (None, *plugins))
    if not isinstance(node.value, tuple) or not node.value:
        text = f"got {show(node.plain())}; must be `all` or a list of {listed(STAGES)}"
        problems.append(Problem(node.place, "stages", text + did_you_mean(node.plain(), ["all"])))
        return ()
    names = [item.plain() for item in node.value]
    for index, (name, item) in enumerate(zip(names, node.value, strict=True)):
        if name not in tuple(STAGES):
            text = f"got {show(name)}; stages: {listed(STAGES)}{did_you_mean(name, STAGES)}"
            problems.append(Problem(item.place, "stages", text))
        elif name in names[:index]:
            problems.append(Problem(item.place, "stages", f"got {show(name)} twice; keep one"))
    # In graph order, however the file orders them: reports and plans then list stages alike.
    return tuple(stage for stage in STAGES if stage in names)
