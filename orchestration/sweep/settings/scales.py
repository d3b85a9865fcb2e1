"""Scale files: the meaning of S, B and L, the data, the steps and the number of images."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gigatok.config import TransformerSize
from orchestration.sweep.settings.keys import (
    RANK_RECIPE,
    RANK_SCALE,
    SECTIONS,
    SUFFIX_2D,
    Checker,
    Setting,
    groups,
    read_size,
    trial_keys,
)
from orchestration.yaml.source import (
    Node,
    Place,
    Problem,
    SweepError,
    did_you_mean,
    display,
    entries,
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
    place: Place
    description: str
    sizes: Mapping[str, TransformerSize]
    generator_sizes: Mapping[str, TransformerSize]
    trial: Mapping[str, Setting]
    recipes: Mapping[str, Mapping[str, Setting]]
    written: Mapping[str, Any]


def scale_file(name: str, place: Place, directory: Path) -> Path | Problem:
    """Return the file of a scale, or a problem that lists the scales that exist."""
    names = sorted(path.stem for path in directory.glob("*.yaml"))
    # Compared with the listing: a name such as `../x` can then lead nowhere.
    if name in names:
        return directory / f"{name}.yaml"
    given = f"got {show(name)}" if name else "missing"
    text = f"{given}; scales in {display(directory)}: {listed(names)}"
    return Problem(place, "scale", text + did_you_mean(name, names))


def read_scale(path: Path, problems: list[Problem]) -> Scale | None:
    """Read a scale; None after a problem that makes the whole file unusable."""
    try:
        root = read_file(path, "scale", SCALE_KEYS, problems)
    # Collected: the problems of the sweep's own file are reported together with these.
    except SweepError as error:
        problems.extend(error.problems)
        return None
    return scale_of(path.stem, root, problems)


def scale_of(name: str, root: Node, problems: list[Problem]) -> Scale:
    """Check the content of a scale's file."""
    parts = entries(root, "", problems)
    report_unknown(parts, SCALE_KEYS, "a scale", problems)
    # Before `trial` and `recipes`, whose values may name these sizes.
    sizes = _sizes(parts.get("sizes"), "sizes", problems)
    generator_sizes = _sizes(parts.get("generator_sizes"), "generator_sizes", problems)
    checker = Checker(problems, name, sizes, generator_sizes)
    return Scale(
        name=name,
        place=parts["trial"].key_place if "trial" in parts else root.place,
        description=text_of(parts.get("description"), "description", problems),
        sizes=sizes,
        generator_sizes=generator_sizes,
        trial=_trial(parts.get("trial"), checker),
        recipes=_recipes(parts.get("recipes"), checker),
        written=root.plain(),
    )


def report_unknown(
    parts: Mapping[str, Node], known: tuple[str, ...], what: str, problems: list[Problem]
) -> None:
    """Report every key that `what` does not have."""
    for key, node in parts.items():
        if key not in known:
            # A frequent mistake: the nested form of a scale's `trial`, at the top of a sweep.
            hint = f"; {key} belongs below `set:` or `axes:`, dotted" if key in SECTIONS else ""
            text = f"unknown key; {what} has the keys {listed(known)}{did_you_mean(key, known)}"
            problems.append(Problem(node.key_place, key, text + hint))


def text_of(node: Node | None, key: str, problems: list[Problem]) -> str:
    """Read a text value; empty if it is missing or, after a report, not text."""
    if node is None or node.value is None:
        return ""
    if isinstance(node.value, str):
        return node.value.strip()
    problems.append(Problem(node.place, key, f"got {show(node.plain())}; must be text; quote it"))
    return ""


def _sizes(node: Node | None, key: str, problems: list[Problem]) -> dict[str, TransformerSize]:
    named = {
        name: read_size(name, item, f"{key}.{name}", problems)
        for name, item in entries(node, key, problems).items()
    }
    return {name: size for name, size in named.items() if size is not None}


def _flatten(node: Node, prefix: str, problems: list[Problem]) -> dict[str, Node]:
    """Flatten the nested mappings below `prefix` to dotted keys."""
    flat: dict[str, Node] = {}
    for key, item in entries(node, prefix, problems).items():
        name = f"{prefix}.{key}" if prefix else key
        # A size stays whole, although it may be a mapping: it is a leaf of the key tree.
        flat |= _flatten(item, name, problems) if name in groups() else {name: item}
    return flat


def _trial(node: Node | None, checker: Checker) -> dict[str, Setting]:
    if node is None:
        return {}
    flat = _flatten(node, "", checker.problems)
    # All keys are checked before wrong ones are dropped, so every mistake is reported.
    checked = {
        name: checker.setting(name, item, f"trial.{name}", RANK_SCALE)
        for name, item in flat.items()
    }
    return {name: setting for name, setting in checked.items() if setting is not None}


def _recipes(node: Node | None, checker: Checker) -> dict[str, dict[str, Setting]]:
    """Read tokenizer settings by tokenizer name, with keys relative to `tokenizer`."""
    # Every pair, not only the published ones: a sweep may combine sizes freely.
    pairs = [f"{a}-{b}" for a, b in itertools.product(checker.sizes or (), repeat=2)]
    names = {*pairs, *(pair + SUFFIX_2D for pair in pairs)}
    recipes: dict[str, dict[str, Setting]] = {}
    for name, item in entries(node, "recipes", checker.problems).items():
        # Reported and read on, so that mistakes in its keys show in the same run.
        if name not in names:
            sizes = listed(checker.sizes or ())
            text = f"unknown tokenizer; must be encoder-decoder of the sizes {sizes}"
            text += f", with {SUFFIX_2D} for what only the baseline has"
            checker.problems.append(Problem(item.key_place, f"recipes.{name}", text))
        flat = _flatten(item, "tokenizer", checker.problems)
        recipes[name] = {}
        for key, value in flat.items():
            where = f"recipes.{name}.{key.removeprefix('tokenizer.')}"
            setting = checker.setting(key, value, where, RANK_RECIPE)
            if setting is not None:
                recipes[name][key] = setting
    return recipes


def missing_key(scale: Scale, name: str) -> Problem:
    """Report a key that neither the scale nor the sweep gives."""
    key = trial_keys().get(name)
    allowed = f"; must be {key.allowed}" if key else ""
    text = f"missing{allowed}; give it here or in the sweep"
    return Problem(scale.place, f"trial.{name}", text)
