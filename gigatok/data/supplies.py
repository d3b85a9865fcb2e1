"""Check for data and networks that the user must supply. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

from gigatok.config import Config, EvaluationConfig, SplitConfig, TokenizerConfig
from gigatok.config.fields.identity import config_classes
from gigatok.config.kinds.data_sets import find_data_set

_FILES = {
    "evaluation.reference adm_imagenet256": "GIGATOK_ADM_IMAGENET256",
    "tokenizer.discriminator dino": "GIGATOK_DINO",
}
"""Setting -> variable that must name a file."""


def absent(configs: Iterable[Config]) -> list[str]:
    """List what stages of these configs need from the user and is missing here."""
    # Thousands of stages read the same few things; each is looked for once.
    needs = dict.fromkeys(need for config in configs for need in _needs(config))
    problems = (
        _no_file(what, _FILES[what]) if what in _FILES else _no_data(what, split)
        for what, split in needs
    )
    return list(dict.fromkeys(problem for problem in problems if problem is not None))


def _needs(config: Config) -> Iterator[tuple[str, str]]:
    """Yield the settings of `_FILES` that a config has, and the data sets with the split read."""
    for part in (getattr(config, name) for name in _needing(type(config))):
        if isinstance(part, SplitConfig):
            yield part.name, part.split
        elif isinstance(part, EvaluationConfig) and part.reference != "val":
            yield f"evaluation.reference {part.reference}", ""
        elif isinstance(part, TokenizerConfig) and part.discriminator == "dino":
            yield "tokenizer.discriminator dino", ""


@cache
def _needing(kind: type[Config]) -> tuple[str, ...]:
    """List the fields of a config that may need something: most stages of a plan have none."""
    parts = (SplitConfig, EvaluationConfig, TokenizerConfig)
    return tuple(
        name
        for name, field in kind.model_fields.items()
        if any(issubclass(found, parts) for found in config_classes(field.annotation))
    )


def _no_data(name: str, split: str) -> str | None:
    supply = find_data_set(name).supply
    if supply is None:
        return None
    # Imported here: looking at a container takes libraries that few plans need.
    problem: str | None = import_module(supply).missing(split)
    return problem


def _no_file(setting: str, variable: str) -> str | None:
    given = os.environ.get(variable)
    if not given:
        return f"{setting} needs {variable}, which is not set"
    if not Path(given).expanduser().is_file():
        return f"{setting} needs {variable}, which is {given} and no file"
    return None
