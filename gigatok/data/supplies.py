"""Check for data and networks that the user must supply. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from gigatok.config import Config, EvaluationConfig, SplitConfig, TokenizerConfig

_FILES = {
    "evaluation.reference adm_imagenet256": "GIGATOK_ADM_IMAGENET256",
    "tokenizer.discriminator dino": "GIGATOK_DINO",
}
"""Setting -> variable that must name a file; ImageNet is a folder, and is checked inside."""


def absent(configs: Iterable[Config]) -> list[str]:
    """List what stages of these configs need from the user and is missing here."""
    # Thousands of stages read the same few things; each is looked for once.
    needs = dict.fromkeys(need for config in configs for need in _needs(config))
    problems = (
        _no_file(need, _FILES[need]) if need in _FILES else _no_imagenet(need) for need in needs
    )
    return list(dict.fromkeys(problem for problem in problems if problem is not None))


def _needs(config: Config) -> Iterator[str]:
    """Yield the settings of `_FILES`, and the splits of ImageNet, that a config needs."""
    for part in (getattr(config, name) for name in type(config).model_fields):
        if isinstance(part, SplitConfig) and part.name == "imagenet":
            yield part.split
        elif isinstance(part, EvaluationConfig) and part.reference != "val":
            yield f"evaluation.reference {part.reference}"
        elif isinstance(part, TokenizerConfig) and part.discriminator == "dino":
            yield "tokenizer.discriminator dino"


def _no_imagenet(split: str) -> str | None:
    # Here, since parquet takes a while to import and few plans need it.
    from gigatok.data.imagenet_folder import detect, release_folder

    try:
        detect(release_folder(), split)
    except (ValueError, OSError) as error:
        return str(error)
    return None


def _no_file(setting: str, variable: str) -> str | None:
    given = os.environ.get(variable)
    if not given:
        return f"{setting} needs {variable}, which is not set"
    if not Path(given).expanduser().is_file():
        return f"{setting} needs {variable}, which is {given} and no file"
    return None
