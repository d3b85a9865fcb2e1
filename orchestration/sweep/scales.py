"""Scale files: what S, B, L mean in a regime, which data, how long, how many images."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gigatok.config import TransformerSize
from orchestration.sweep.config_keys import (
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
    """A regime.

    Attributes:
        name: file stem.
        place: where its `trial` is, for what is missing there.
        description: one line on what it is for.
        sizes: tokenizer encoder and decoder sizes by name.
        generator_sizes: generator sizes by name.
        trial: dotted key -> value.
        recipes: tokenizer name such as `S-B` -> dotted key -> value, where training depends on it;
            `S-B-2d` goes over `S-B` where the variant is 2d.
    """

    name: str
    place: Place
    description: str
    sizes: Mapping[str, TransformerSize]
    generator_sizes: Mapping[str, TransformerSize]
    trial: Mapping[str, Setting]
    recipes: Mapping[str, Mapping[str, Setting]]


def scale_file(name: str, place: Place, directory: Path) -> Path | Problem:
    """The file of a scale, or the problem that there is none, with the scales that exist."""
    names = sorted(path.stem for path in directory.glob("*.yaml"))
    if name in names:
        return directory / f"{name}.yaml"
    given = f"got {show(name)}" if name else "missing"
    text = f"{given}; scales in {display(directory)}: {listed(names)}"
    return Problem(place, "scale", text + did_you_mean(name, names))


def read_scale(path: Path, problems: list[Problem]) -> Scale | None:
    """Read a scale; None after reporting that the file as a whole is unusable."""
    try:
        root = read_file(path, "scale", SCALE_KEYS, problems)
    except SweepError as error:
        problems.extend(error.problems)
        return None
    parts = entries(root, "", problems)
    report_unknown(parts, SCALE_KEYS, "a scale", problems)
    sizes = _sizes(parts.get("sizes"), "sizes", problems)
    generator_sizes = _sizes(parts.get("generator_sizes"), "generator_sizes", problems)
    checker = Checker(problems, path.stem, sizes, generator_sizes)
    return Scale(
        name=path.stem,
        place=parts["trial"].key_place if "trial" in parts else root.place,
        description=text_of(parts.get("description"), "description", problems),
        sizes=sizes,
        generator_sizes=generator_sizes,
        trial=_trial(parts.get("trial"), checker),
        recipes=_recipes(parts.get("recipes"), checker),
    )


def report_unknown(
    parts: Mapping[str, Node], known: tuple[str, ...], what: str, problems: list[Problem]
) -> None:
    """Report every key that `what` does not have."""
    for key, node in parts.items():
        if key not in known:
            hint = f"; {key} belongs below `set:` or `axes:`, dotted" if key in SECTIONS else ""
            text = f"unknown key; {what} has the keys {listed(known)}{did_you_mean(key, known)}"
            problems.append(Problem(node.key_place, key, text + hint))


def text_of(node: Node | None, key: str, problems: list[Problem]) -> str:
    """A text value; empty where it is missing or, after reporting it, not text."""
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
    """Nested mappings below `prefix` as dotted keys; leaves are not looked into."""
    flat: dict[str, Node] = {}
    for key, item in entries(node, prefix, problems).items():
        name = f"{prefix}.{key}" if prefix else key
        flat |= _flatten(item, name, problems) if name in groups() else {name: item}
    return flat


def _trial(node: Node | None, checker: Checker) -> dict[str, Setting]:
    if node is None:
        return {}
    flat = _flatten(node, "", checker.problems)
    checked = {
        name: checker.setting(name, item, f"trial.{name}", RANK_SCALE)
        for name, item in flat.items()
    }
    return {name: setting for name, setting in checked.items() if setting is not None}


def _recipes(node: Node | None, checker: Checker) -> dict[str, dict[str, Setting]]:
    """Tokenizer settings by tokenizer name, keys relative to `tokenizer`."""
    pairs = [f"{a}-{b}" for a, b in itertools.product(checker.sizes or (), repeat=2)]
    names = {*pairs, *(pair + SUFFIX_2D for pair in pairs)}
    recipes: dict[str, dict[str, Setting]] = {}
    for name, item in entries(node, "recipes", checker.problems).items():
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
    """A key that neither the scale nor the sweep gives."""
    key = trial_keys().get(name)
    allowed = f"; must be {key.allowed}" if key else ""
    text = f"missing{allowed}; give it here or in the sweep"
    return Problem(scale.place, f"trial.{name}", text)
