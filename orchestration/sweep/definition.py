"""Definition of a sweep: reads one YAML file, checks it, and expands it into trials.

The grammar is in `sweeps/README.md`. All problems of a sweep and its scale are reported at once.
The rooms below are in the order of the way: `settings` reads values, `formulas` what is computed
from them, `grid` makes trials of their combinations, `search` of what a sampler suggests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gigatok.claims.claim import Claim, Looks
from gigatok.config import SECTIONS
from gigatok.names import FigureChoice, study_name
from gigatok.plugins import Plugin, PluginError, load
from orchestration.sweep.claims import read_claims
from orchestration.sweep.figure import read_figure
from orchestration.sweep.grid.axes import (
    Axes,
    Overrides,
    read_axes,
    read_looks,
    read_overrides,
    read_seeds,
    read_stages,
)
from orchestration.sweep.grid.expansion import Expansion, Trial
from orchestration.sweep.grid.selection import report_own_seeds
from orchestration.sweep.grid.unread import unread_problems
from orchestration.sweep.search.block import Search
from orchestration.sweep.search.reading import read_search
from orchestration.sweep.search.targets import check_targets
from orchestration.sweep.settings.keys import SEED
from orchestration.sweep.settings.scales import Scale, read_scale, scale_file
from orchestration.yaml.parts import Part
from orchestration.yaml.source import (
    Node,
    Place,
    Problem,
    SweepError,
    did_you_mean,
    display,
    listed,
    parse,
    read_file,
)

__all__ = ["Expansion", "Sweep", "SweepError", "Trial", "expand", "find_sweep", "load_sweep"]

SWEEPS_DIR = Path(__file__).resolve().parents[2] / "sweeps"
SHIPPED_SCALES = SWEEPS_DIR / "scales"
SWEEP_KEYS = (
    *("question", "paper", "scale", "plugins"),
    *("axes", "zip", "exclude", "include", "set", "solve", "where", "derive"),
    *("claims", "seeds", "stages", "search", "figure", "at"),
)
# Not the question: another question is another sweep.
AT_KEYS = tuple(
    key for key in SWEEP_KEYS if key not in ("question", "paper", "scale", "plugins", "at")
)
"""Parts that `at` may replace for one scale."""
# A frequent mistake: the nested form of a scale's `trial`, at the top of a sweep.
_NESTED = {name: f"; {name} belongs below `set:` or `axes:`, dotted" for name in SECTIONS}


_ADDED = Place("added to the file")


@dataclass(frozen=True)
class Sweep:
    """Sweep after its check: one question, of which every trial is valid.

    Attributes:
        name: name of the file without `.yaml`; see `gigatok.names.study_name`.
        path: the file.
        source: text of the file.
        question: the question that the sweep answers.
        paper: the paper's table or figure that it reproduces, or "".
        scale: name of the scale in use.
        own_scale: file of the scale; None: it is shipped, or read from a record of a launch.
        scale_description: one line from the scale's file.
        axes: key -> values as written, `--set` applied.
        zip: groups of keys that vary together, each key -> values as written.
        exclude: dropped combinations, key -> values as written.
        include: added combinations, key -> values as written.
        set: fixed overrides of the scale, as written.
        overrides: values of `--set`, as written.
        seeds: seeds of every setting; of seeds until decided, those at the start.
        looks: seeds until decided; None: the seeds are all there are.
        stages: requested stages in graph order; their inputs are not listed.
        plugins: those that its YAML names, loaded.
        claims: what it says about its results, before there are any.
        figure: axes that its figure shows; part of no key.
        search: the search that asks for trials one by one; None: the trials are all combinations.
        expansion: the trials, of a search one example; use `expand`.
    """

    name: str
    path: Path
    source: str = field(repr=False)
    question: str
    paper: str
    scale: str
    own_scale: Path | None
    scale_description: str
    axes: Mapping[str, tuple[Any, ...]]
    zip: tuple[Mapping[str, tuple[Any, ...]], ...]
    exclude: tuple[Mapping[str, Any], ...]
    include: tuple[Mapping[str, tuple[Any, ...]], ...]
    set: Mapping[str, Any]
    overrides: Mapping[str, Any]
    seeds: tuple[int, ...]
    looks: Looks | None
    stages: tuple[str, ...]
    plugins: tuple[Plugin, ...]
    claims: tuple[Claim, ...]
    search: Search | None
    expansion: Expansion = field(repr=False)
    figure: FigureChoice = field(default_factory=FigureChoice)

    @property
    def argument(self) -> str:
        """Name of the file in commands: a shipped sweep's bare name, else the path."""
        # By folder, not by name: a user's file may have the name of a shipped sweep.
        shipped = self.path.resolve().parent == SWEEPS_DIR
        return self.name if shipped else str(self.path)

    @property
    def varied(self) -> tuple[str, ...]:
        """Keys of axes, zip, `include` and the search, in this order, without `seed`."""
        searched = () if self.search is None else (*self.search.space, *self.search.transfer)
        grids = (self.axes, *self.zip, *self.include)
        keys = (key for grid in grids for key in grid if key != SEED)
        return tuple(dict.fromkeys((*keys, *searched)))


def find_sweep(path: str | Path) -> Path:
    """Find the file of a sweep given by path or by bare name, such as `decoder_scaling`.

    Raises:
        SweepError: there is no such file, or it is a directory; suggests the nearest sweep.
    """
    path = Path(path)
    # A bare name means a file here before a shipped sweep; a path means only itself.
    candidates = (path, SWEEPS_DIR / path.name, SWEEPS_DIR / f"{path.name}.yaml")
    for candidate in candidates if path.parent == Path() else (path,):
        if candidate.is_file():
            return candidate
    shipped, beside = (
        sorted(file.stem for file in folder.glob("*.yaml")) for folder in (SWEEPS_DIR, path.parent)
    )
    what = "is a directory; name one file" if path.is_dir() else "no such file"
    text = f"{what}; sweeps in {display(SWEEPS_DIR)}: {listed(shipped)}"
    wanted = path.name.removesuffix(".yaml")
    problem = Problem(Place(str(path)), "", text + did_you_mean(wanted, [*shipped, *beside]))
    raise SweepError(str(path), [problem])


def load_sweep(
    path: str | Path,
    scale: str | None = None,
    overrides: Sequence[str] = (),
    more: str = "",
) -> Sweep:
    """Read, check and expand a sweep.

    Args:
        path: a file, or the bare name of one in `sweeps/`.
        scale: name of a scale, instead of the sweep's own.
        overrides: `key=value` of `--set`; replaces an axis of the same key by the one value.
        more: YAML with `claims` and `include` that are added to the file's own.

    Raises:
        SweepError: with every problem of the sweep, its scale and the overrides.
    """
    file = find_sweep(path)
    problems: list[Problem] = []
    # The name becomes a folder and an MLflow experiment, so it must be fit for both.
    name = _name(file, problems)
    root = Part(read_file(file, "sweep", SWEEP_KEYS, problems), problems)
    added = Part(parse(more, _ADDED, problems) or Node(None, _ADDED, _ADDED), problems)
    sweep = _read(root, name, file, scale, overrides, added)
    # Only now: every part has had its turn to report.
    if sweep is None:
        raise SweepError(display(file), _in_file_order(problems, root.place.file))
    return sweep


def _read(
    root: Part, name: str, file: Path, scale: str | None, overrides: Sequence[str], added: Part
) -> Sweep | None:
    """Read all parts of a sweep; they report their problems, and with any there is no sweep."""
    problems = root.problems
    root.check_keys(SWEEP_KEYS, "a sweep", _NESTED)
    # Before anything that they may extend: keys, stages, data sets.
    plugins = _load_plugins(root.part("plugins"), file.parent)
    scales = _scale_folders(file)
    # No early return from here on: a scale that is None only leaves unchecked what needs sizes.
    loaded = _scale(root.part("scale"), scale, scales)
    sweep = _with(_at_scale(root, loaded, scales), added)
    given = read_overrides(overrides, loaded, problems)
    seeds = read_seeds(given.seed or sweep.part("seeds"))
    # Seeds that `--set` gives are a list and look once.
    looks = read_looks(given.seed or sweep.part("seeds"), claims=sweep.part("claims").is_given)
    axes = read_axes(sweep, loaded, given)
    if looks is not None:
        report_own_seeds(axes.included)
    question, paper = _question(root.part("question")), root.part("paper").text()
    stages = read_stages(sweep.part("stages"), plugins)
    search = read_search(sweep, axes, seeds, loaded, given.settings)
    if search is None:
        expansion = axes.expand(seeds, loaded, problems)
        # Not of a search: another trial than its example may read what that does not.
        problems += unread_problems(expansion.trials, axes.given)
    else:
        expansion = search.example(problems)
        # On a sound search only: its examples are trials, which a problem may have spoilt.
        if not problems:
            check_targets(search, stages, sweep.part("search"))
    claims = _claims(sweep.part("claims"), axes, expansion, stages, search)
    searched = {} if search is None else (*search.space, *search.transfer)
    figure = read_figure(sweep.part("figure"), [*axes.varied, *searched], axes.formulas.derive)
    if problems or loaded is None:
        return None
    return Sweep(
        name=name,
        path=file,
        source=file.read_text(encoding="utf-8").removeprefix("\ufeff"),
        question=question,
        paper=paper,
        scale=loaded.name,
        own_scale=None if loaded.file in tuple(SHIPPED_SCALES.iterdir()) else loaded.file,
        scale_description=loaded.description,
        **axes.written,
        overrides=given.written,
        seeds=seeds,
        looks=looks,
        stages=stages,
        plugins=plugins,
        claims=claims,
        search=search,
        expansion=expansion,
        figure=figure,
    )


def load_plugins(file: Path) -> tuple[Plugin, ...]:
    """Load the plug-ins that a sweep names, whatever else may be wrong with it.

    Raises:
        SweepError: it cannot be read, or a plug-in is missing or broken.
    """
    problems: list[Problem] = []
    root = Part(read_file(file, "sweep", SWEEP_KEYS, []), problems)
    plugins = _load_plugins(root.part("plugins"), file.parent)
    if problems:
        raise SweepError(display(file), problems)
    return plugins


def _load_plugins(part: Part, folder: Path) -> tuple[Plugin, ...]:
    """Load the plug-ins that a sweep names; relative paths begin at its file."""
    found: list[Plugin] = []
    for item in part.items(", such as [my_lab.tokenizers, ./fsq.py]"):
        name = item.text()
        try:
            found += load([name] if name else [], folder)
        except PluginError as error:
            item.report(str(error))
    return tuple(found)


def _claims(
    part: Part, axes: Axes, expansion: Expansion, stages: Sequence[str], search: Search | None
) -> tuple[Claim, ...]:
    if search is not None and part.is_given:
        part.report("a search has no claims: its settings are not known beforehand")
    # With other problems the settings may not be those that are meant.
    if part.problems:
        return ()
    derived, together = axes.formulas.derive, axes.groups
    return read_claims(part, derived, expansion.trials, stages, together)


def expand(sweep: Sweep) -> Expansion:
    """Return the trials of a sweep, and the cells that `exclude` or `where` removed."""
    return sweep.expansion


def _name(file: Path, problems: list[Problem]) -> str:
    try:
        return study_name(file.name)
    except ValueError as error:
        problems.append(Problem(Place(display(file)), "", str(error)))
        return ""


def _question(part: Part) -> str:
    before, question = len(part.problems), part.text()
    # A question that is no text was reported already, and is empty as well.
    if not question and len(part.problems) == before:
        part.report("missing; say in one line what the sweep asks")
    return question


def _at_scale(root: Part, scale: Scale | None, folders: Sequence[Path]) -> Part:
    """Return a sweep at its scale: parts below `at` replace those of the same name.

    Parts for other scales are checked as far as possible without their sizes, so that a mistake
    below `paper` shows on the laptop and not on the cluster.
    """
    here = root
    for name, part in root.part("at").mapping().items():
        found = scale_file(name, part.node.key_place, folders)
        if isinstance(found, Problem):
            root.problems.append(found)
        block = part.mapping()
        # Under the keys that they replace: `axes.tokenizer.lr`, whatever the scale.
        replace(part, key="").check_keys(AT_KEYS, "a scale below `at`", _NESTED)
        nodes = {key: item.node for key, item in {**root.mapping(), **block}.items()}
        replaced = replace(root, node=replace(root.node, value=nodes))
        if scale is not None and name == scale.name:
            here = replaced
        else:
            _check_without_sizes(replaced)
    # Replaced parts are used at other scales, so they are checked as well.
    if here is not root:
        _check_without_sizes(root)
    return here


def _with(sweep: Part, added: Part) -> Part:
    """Put further claims and entries of `include` behind those of a sweep."""
    own, more = sweep.mapping(), added.mapping()
    nodes = {key: part.node for key, part in own.items()}
    for key, part in more.items():
        before, value = nodes.get(key), part.node.value
        match before and before.value, value:
            case dict() as first, dict() as second:
                value = {**first, **second}
            case tuple() as first, tuple() as second:
                value = (*first, *second)
        nodes[key] = replace(part.node, value=value)
    return replace(sweep, node=replace(sweep.node, value=nodes)) if more else sweep


def _check_without_sizes(sweep: Part) -> None:
    axes = read_axes(sweep, None, Overrides())
    read_search(sweep, axes, read_seeds(sweep.part("seeds")), None, {})
    read_stages(sweep.part("stages"))


def _scale_folders(file: Path) -> tuple[Path, ...]:
    """Give the folders of scales: that beside a sweep first, so that a user's own scale wins."""
    beside = file.parent / "scales"
    # Not the folder of the shipped ones twice, where a shipped sweep is read.
    is_own = beside.is_dir() and beside.resolve() != SHIPPED_SCALES
    return (beside, SHIPPED_SCALES) if is_own else (SHIPPED_SCALES,)


def _scale(part: Part, asked: str | None, folders: Sequence[Path]) -> Scale | None:
    before = len(part.problems)
    name = part.text() if asked is None else asked
    place = part.place if asked is None else Place("--scale")
    found = scale_file(name, place, folders)
    if isinstance(found, Path):
        return read_scale(found, part.problems)
    # A name that is no text was reported already.
    if len(part.problems) == before:
        part.problems.append(found)
    return None


def _in_file_order(problems: list[Problem], sweep_file: str) -> list[Problem]:
    """Sort the sweep's own problems first, and each file from top to bottom."""
    return sorted(
        problems, key=lambda p: (p.place.file != sweep_file, p.place.file, p.place.line or 0)
    )
