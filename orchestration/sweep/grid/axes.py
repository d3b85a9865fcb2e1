"""Axes of a sweep: `axes`, `zip`, `exclude`, `include`, `set`, seeds, and `--set` over them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import Field, ValidationError

from gigatok.claims.claim import Looks
from gigatok.plugins import Plugin, owner_of
from gigatok.stages import STAGES
from orchestration.sweep.formulas.formulas import Formulas, read_formulas
from orchestration.sweep.grid.expansion import (
    MAX_TRIALS,
    Expansion,
    Rule,
    count,
    expand_cells,
)
from orchestration.sweep.grid.sections import Dimension, Dimensions
from orchestration.sweep.grid.selection import (
    SEED_NUMBER,
    Included,
    read_exclude,
    read_include,
    report_lacking,
)
from orchestration.sweep.settings.keys import SEED, find_varying, report_taken, trial_keys
from orchestration.sweep.settings.scales import Scale, size_names
from orchestration.sweep.settings.settings import (
    RANK_AXIS,
    RANK_OVERRIDE,
    RANK_SET,
    AxisValues,
    Setting,
    SizeNames,
    report_repeats,
)
from orchestration.yaml.parts import Part
from orchestration.yaml.source import (
    Node,
    Place,
    Problem,
    SweepError,
    did_you_mean,
    listed,
    parse,
    show,
)
from orchestration.yaml.values import ValueType, one_of

NO_EXPANSION = Expansion((), ())
SEVERAL = ValueType(Annotated[int, Field(ge=2, le=1000)])


@dataclass(frozen=True)
class Overrides:
    """Values of `--set`: checked settings, the seed if given, and everything as written."""

    settings: dict[str, Setting] = field(default_factory=dict)
    written: dict[str, Any] = field(default_factory=dict)
    seed: Part | None = None


@dataclass(frozen=True)
class Axes:
    """Checked axes of a sweep, with `--set` applied.

    Attributes:
        axes: key -> its values.
        groups: zip groups, each key -> equally many values.
        included: cells to add; without axes they are all cells.
        rules: cells to drop.
        formulas: `derive`, `where` and `solve`.
        fixed: `set`, and values of `--set` that replace no axis.
    """

    axes: AxisValues
    groups: tuple[AxisValues, ...]
    included: tuple[Included, ...]
    rules: tuple[Rule, ...]
    fixed: dict[str, Setting]
    formulas: Formulas
    written_exclude: tuple[Mapping[str, Any], ...]
    written_set: Mapping[str, Any]

    @property
    def written(self) -> dict[str, Any]:
        """Parts of the sweep as the file and `--set` write them, by their names in `Sweep`."""
        return {
            "axes": _written(self.axes),
            "zip": tuple(map(_written, self.groups)),
            "exclude": self.written_exclude,
            "include": tuple(_written(entry.rows) for entry in self.included),
            "set": self.written_set,
        }

    @property
    def varied(self) -> tuple[str, ...]:
        """Keys of axes, zip groups and `include`, in this order."""
        grouped = (key for group in self.groups for key in group)
        added = (key for entry in self.included for key in entry.values)
        return tuple(dict.fromkeys((*self.axes, *grouped, *added)))

    @property
    def given(self) -> dict[str, Setting]:
        """First setting of every key that the sweep or `--set` gives, but for seeds."""
        grids = (*(entry.values for entry in self.included), *self.groups, self.axes)
        first = {key: rows[0] for grid in grids for key, rows in grid.items()}
        return {key: one for key, one in {**first, **self.fixed}.items() if key != SEED}

    def _place(self) -> Place:
        """Find the place of the first axis, for problems of all axes together."""
        grids = (self.axes, *self.groups, *(entry.values for entry in self.included))
        rows = [row for grid in grids for row in grid.values()]
        return rows[0][0].place if rows else Place("seeds")

    def blocks(self, seeds: Sequence[int]) -> tuple[Dimensions, ...]:
        """Build the product of axes and zip groups, if any, then each entry of `include`.

        The seeds are the last dimension of each block.
        """
        # Seeds vary fastest, so the trials of one setting stand side by side in the plan.
        seed_rows = [{SEED: Setting(s, s, Place("seeds"), "seeds", RANK_AXIS)} for s in seeds]
        # A sweep of `include` alone has no product; without any of the three it is one trial.
        axes = [_columns(self.axes)] if self.axes or self.groups or not self.included else []
        grids = [[*columns, *map(_rows, self.groups)] for columns in axes]
        blocks = [(*grid, seed_rows) for grid in grids]
        for entry in self.included:
            own = [{SEED: setting} for setting in entry.seeds]
            blocks.append((*_columns(entry.values), own or seed_rows))
        return tuple(tuple(Dimension(tuple(rows)) for rows in block) for block in blocks)

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
            place = self.formulas.where[0].part.place if part == "where" else self.rules[0].place
            text = f"all {cells} combinations are excluded; leave at least one"
            problems.append(Problem(place, part, text))
        return expansion


def _columns(axes: AxisValues) -> list[list[dict[str, Setting]]]:
    return [[{key: setting} for setting in row] for key, row in axes.items()]


def _written(axes: AxisValues) -> dict[str, tuple[Any, ...]]:
    return {key: tuple(setting.written for setting in row) for key, row in axes.items()}


def _rows(group: AxisValues) -> list[dict[str, Setting]]:
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
    for text in texts:
        key, equals, value = text.partition("=")
        key, place = key.strip(), Place(f"--set {text}")
        if not equals or not key:
            problems.append(Problem(place, "", "must be key=value, such as tokenizer.lr=1e-3"))
            continue
        if key in found.written:
            problems.append(Problem(place, key, "given twice; keep one"))
        try:
            # `--set key=` is null, as an empty value is in YAML.
            node = parse(value, place, problems) or Node(None, place, place)
        except SweepError as error:
            problems.extend(error.problems)
            continue
        found.written[key] = node.plain()
        # The seed is a dimension and no key of the config; `read_seeds` expects a list.
        if key == SEED:
            found = replace(found, seed=Part(Node((node,), place, place), problems, "seeds"))
        elif setting := size_names(scale).setting(key, Part(node, problems, key), RANK_OVERRIDE):
            found.settings[key] = setting
    return found


def read_axes(sweep: Part, scale: Scale | None, given: Overrides) -> Axes:
    """Check `axes`, `zip`, `exclude`, `include` and `set`, and apply `--set` to them."""
    names, overrides = size_names(scale), given.settings
    # `set` first: `taken` lets a key that is given twice be reported at its later place.
    fixed_parts = sweep.part("set").mapping("; write `key: value`")
    taken = dict(fixed_parts)
    fixed = {
        key: setting
        for key, part in fixed_parts.items()
        if (setting := names.setting(key, part, RANK_SET)) is not None
    }
    axes = _axes(sweep.part("axes"), names, taken)
    groups = _groups(sweep.part("zip"), names, taken)
    # An axis shrinks to the one value; a zip group keeps its rows, for its other keys.
    axes = {k: (overrides[k],) if k in overrides else row for k, row in axes.items()}
    groups = tuple(
        {k: (overrides[k],) * len(row) if k in overrides else row for k, row in group.items()}
        for group in groups
    )
    varied = {*axes, *(key for group in groups for key in group)}
    # A value of `--set` for a key that nothing varies is like one of `set`.
    fixed |= {key: setting for key, setting in overrides.items() if key not in varied}
    declared = [key for key in taken if key not in fixed_parts and key in trial_keys()]
    # `exclude` may name only what varies: a rule on a fixed key drops all cells or none.
    rules, written = read_exclude(sweep.part("exclude"), names, declared)
    solved = replace(sweep.part("solve"), problems=[]).mapping()
    included = read_include(sweep.part("include"), names, solved)
    replaced = given.seed is not None
    included = tuple(entry.overridden(overrides, seed=replaced) for entry in included)
    formulas = read_formulas(sweep, taken).without(overrides)
    written_set = {key: part.plain() for key, part in fixed_parts.items()}
    return Axes(axes, groups, included, rules, fixed, formulas, written, written_set)


def _axes(part: Part, names: SizeNames, taken: dict[str, Part]) -> AxisValues:
    """Read the axes; those with a problem are left out."""
    axes: AxisValues = {}
    for key, values in part.mapping("; write `tokenizer.decoder: [S, B]`").items():
        report_taken(key, values, taken)
        before = len(values.problems)
        row = _values(key, values, names)
        report_repeats(row, values)
        # None rather than the sound part: a shorter axis would give wrong counts in later
        # messages.
        if row and key not in taken and len(values.problems) == before:
            axes[key] = row
        taken.setdefault(key, values)
    return axes


def _values(key: str, part: Part, names: SizeNames) -> tuple[Setting, ...]:
    """Read the values of an axis or of a column of `zip`; those with a problem are left out."""
    if find_varying(key, part) is None:
        return ()
    if not part.is_list:
        example = show(part.plain()).strip("'")
        part.report_wrong(f"a list of values, such as [{example}]")
        return ()
    if not part.items():
        part.report("is empty; give at least one value")
    return names.settings(key, part.items())


def _groups(part: Part, names: SizeNames, taken: dict[str, Part]) -> tuple[AxisValues, ...]:
    example = " of mappings; write `- {tokenizer.encoder: [S, B], tokenizer.decoder: [B, L]}`"
    groups = [_group(item, names, taken) for item in part.numbered(example)]
    return tuple(group for group in groups if group)


def _group(part: Part, names: SizeNames, taken: dict[str, Part]) -> AxisValues:
    """Read keys that vary together, whose values may repeat; empty after a problem."""
    columns = part.mapping()
    before = len(part.problems)
    lengths = {key: len(column.items()) for key, column in columns.items() if column.is_list}
    if len(set(lengths.values())) > 1:
        given = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        part.report(f"{given} values; keys that vary together need equally many")
    group: AxisValues = {}
    for key, column in columns.items():
        report_taken(key, column, taken)
        taken.setdefault(key, column)
        group[key] = _values(key, column, names)
    if len(part.problems) > before or len({len(row) for row in group.values()}) > 1:
        return {}  # without a scale, sizes have no meaning, so columns of sizes are empty
    # By `repr`: 1, 1.0 and true are equal in Python, but are three values.
    rows = [tuple(repr(s.value) for s in row) for row in zip(*group.values(), strict=True)]
    for index, row in enumerate(rows):
        if row in rows[:index]:
            given = show({key: column[index].written for key, column in group.items()})
            part.report(f"row {given} is given twice; rows must differ")
    return group if len(part.problems) == before else {}


def read_looks(part: Part, *, claims: bool) -> Looks | None:
    """Read `{start: 3, until: decided, at_most: 8}`, seeds that depend on the claims.

    Args:
        part: `seeds` of the sweep.
        claims: the sweep has some.

    Returns:
        None where the seeds are a list, or after a problem was reported.
    """
    if not part.is_mapping:
        return None
    before = len(part.problems)
    kinds = {"start": SEVERAL, "until": one_of(["decided"]), "at_most": SEVERAL}
    given = part.fields(kinds, "seeds", required=kinds)
    if not claims:
        part.report("seeds until decided need `claims` that are decided; give some, or a list")
    if len(part.problems) > before:
        return None
    try:
        return Looks(start=given["start"], at_most=given["at_most"])
    except ValidationError as error:
        part.report(str(error.errors()[0]["ctx"]["error"]))
        return None


def read_seeds(part: Part) -> tuple[int, ...]:
    """Read the seeds, `[0]` by default; empty after a problem was reported.

    Of seeds until decided these are the ones at the start.
    """
    if not part.is_given:
        return (0,)
    if part.is_mapping:
        start = part.part("start").plain()
        # What is wrong with it is said by `read_looks`.
        return tuple(range(start)) if isinstance(start, int) and 2 <= start <= 1000 else (0,)
    before = len(part.problems)
    seeds: list[int] = []
    for item in part.items(" of whole numbers; write `seeds: [0, 1]`"):
        seed = item.read(SEED_NUMBER)
        if seed in seeds:
            item.report(f"got {seed} twice; seeds must differ")
        elif seed is not None:
            seeds.append(seed)
    if not seeds and len(part.problems) == before:
        part.report("is empty; give at least one, such as [0]")
    return tuple(seeds) if len(part.problems) == before else ()


def read_stages(part: Part, plugins: Collection[Plugin] = ()) -> tuple[str, ...]:
    """Read the requested stages in graph order.

    `all`, or a missing list, means every stage of this program and of the plug-ins that the sweep
    names: one that is merely installed must not change what sweeps mean.
    """
    if not part.is_given or part.plain() == "all":
        return tuple(name for name in STAGES if owner_of("stage", name) in (None, *plugins))
    if not part.is_list or not part.items():
        near = did_you_mean(part.plain(), ["all"])
        part.report_wrong(f"`all` or a list of {listed(STAGES)}{near}")
        return ()
    names = [item.plain() for item in part.items()]
    for index, item in enumerate(part.items()):
        name = names[index]
        if name not in tuple(STAGES):
            item.report(f"got {show(name)}; stages: {listed(STAGES)}{did_you_mean(name, STAGES)}")
        elif name in names[:index]:
            item.report(f"got {show(name)} twice; keep one")
    # In graph order, however the file orders them: reports and plans then list stages alike.
    return tuple(stage for stage in STAGES if stage in names)
