"""Scale files: the meaning of S, B and L, the data, the steps and the number of images."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestration.sweep.settings.keys import SUFFIX_2D, groups, trial_keys
from orchestration.sweep.settings.settings import (
    RANK_RECIPE,
    RANK_SCALE,
    Setting,
    SizeNames,
    Sizes,
    read_size,
)
from orchestration.yaml.parts import Part
from orchestration.yaml.source import (
    Place,
    Problem,
    SweepError,
    did_you_mean,
    display,
    listed,
    read_file,
    show,
)

SCALE_KEYS = ("description", "sizes", "generator_sizes", "trial", "recipes")


@dataclass(frozen=True)
class Scale:
    """Scale: sizes and settings that all trials share.

    Attributes:
        name: name of the file without `.yaml`.
        file: the file; None: the scale is read from a record of a launch.
        place: place of its `trial`, for keys that are missing there.
        description: one line on its purpose.
        sizes: tokenizer encoder and decoder sizes by name.
        generator_sizes: generator sizes by name.
        trial: dotted key -> value.
        recipes: tokenizer name such as `S-B` -> dotted key -> value, for settings that depend on
            the tokenizer; `S-B-2d` overrides `S-B` for the 2D variant.
        written: the file as plain data.
    """

    name: str
    file: Path | None
    place: Place
    description: str
    sizes: Sizes
    generator_sizes: Sizes
    trial: Mapping[str, Setting]
    recipes: Mapping[str, Mapping[str, Setting]]
    written: Mapping[str, Any]

    @property
    def size_names(self) -> SizeNames:
        """Names that settings may use at this scale."""
        return SizeNames(self.name, self.sizes, self.generator_sizes)


def scale_file(name: str, place: Place, folders: Sequence[Path]) -> Path | Problem:
    """Return the file of a scale, or a problem that lists the scales that exist.

    Args:
        name: of the scale.
        place: of the name.
        folders: of scales; the first one that has the name decides.
    """
    found = {folder: sorted(path.stem for path in folder.glob("*.yaml")) for folder in folders}
    for folder, names in found.items():
        # Compared with the listing: a name such as `../x` can then lead nowhere.
        if name in names:
            return folder / f"{name}.yaml"
    given = f"got {show(name)}" if name else "missing"
    lists = "; in ".join(f"{display(folder)}: {listed(names)}" for folder, names in found.items())
    near = did_you_mean(name, [one for names in found.values() for one in names])
    return Problem(place, "scale", f"{given}; scales in {lists}{near}")


def read_scale(path: Path, problems: list[Problem]) -> Scale | None:
    """Read a scale; None after a problem that makes the whole file unusable."""
    try:
        root = read_file(path, "scale", SCALE_KEYS, problems)
    # Collected: the problems of the sweep's own file are reported together with these.
    except SweepError as error:
        problems.extend(error.problems)
        return None
    return scale_of(path.stem, Part(root, problems), path)


def scale_of(name: str, root: Part, file: Path | None = None) -> Scale:
    """Check the content of a scale's file."""
    root.check_keys(SCALE_KEYS, "a scale")
    # Before `trial` and `recipes`, whose values may name these sizes.
    sizes, generator_sizes = _sizes(root.part("sizes")), _sizes(root.part("generator_sizes"))
    names = SizeNames(name, sizes, generator_sizes)
    trial = root.part("trial")
    return Scale(
        name=name,
        file=file,
        place=trial.node.key_place,
        description=root.part("description").text(),
        sizes=sizes,
        generator_sizes=generator_sizes,
        trial=_settings(_flatten(trial, ""), names, RANK_SCALE),
        recipes=_recipes(root.part("recipes"), names),
        written=root.plain(),
    )


def size_names(scale: Scale | None) -> SizeNames:
    """Return the names of a scale's sizes; without one, all other values can still be checked."""
    return SizeNames() if scale is None else scale.size_names


def _sizes(part: Part) -> Sizes:
    named = {name: read_size(name, item) for name, item in part.mapping().items()}
    return {name: size for name, size in named.items() if size is not None}


def _flatten(part: Part, prefix: str) -> dict[str, Part]:
    """Flatten the nested mappings below `prefix` to dotted keys of the trial."""
    flat: dict[str, Part] = {}
    for name, item in part.mapping().items():
        key = f"{prefix}.{name}".lstrip(".")
        # A size stays whole, although it may be a mapping: it is a leaf of the key tree.
        flat |= _flatten(item, key) if key in groups() else {key: item}
    return flat


def _settings(flat: Mapping[str, Part], names: SizeNames, rank: int) -> dict[str, Setting]:
    found = {key: names.setting(key, part, rank) for key, part in flat.items()}
    return {key: setting for key, setting in found.items() if setting is not None}


def _recipes(part: Part, names: SizeNames) -> dict[str, dict[str, Setting]]:
    """Read tokenizer settings by tokenizer name, with keys relative to `tokenizer`."""
    sizes = names.tokenizer or {}
    # Every pair, not only the published ones: a sweep may combine sizes freely.
    pairs = [f"{a}-{b}" for a, b in itertools.product(sizes, repeat=2)]
    recipes: dict[str, dict[str, Setting]] = {}
    for name, item in part.mapping().items():
        # Reported and read on, so that mistakes in its keys show in the same run.
        if name.removesuffix(SUFFIX_2D) not in pairs:
            text = f"unknown tokenizer; must be encoder-decoder of the sizes {listed(sizes)}"
            item.report_key(f"{text}, with {SUFFIX_2D} for what only the baseline has")
        recipes[name] = _settings(_flatten(item, "tokenizer"), names, RANK_RECIPE)
    return recipes


def missing_key(scale: Scale, name: str) -> Problem:
    """Report a key that neither the scale nor the sweep gives."""
    key = trial_keys().get(name)
    allowed = f"; must be {key.allowed}" if key else ""
    text = f"missing{allowed}; give it here or in the sweep"
    return Problem(scale.place, f"trial.{name}", text)
