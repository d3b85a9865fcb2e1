"""Params of runs in MLflow: identity as flat texts. Other facts of a run are tags."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain

from gigatok.config import (
    FOUND,
    Config,
    NamedConfig,
    TransformerSize,
    TrialConfig,
    marked,
)
from gigatok.config.base import UNREAD_SIZE
from gigatok.names import PARAM_TOKENIZER
from orchestration.plan.identity import canonical


def trial_params(config: TrialConfig) -> dict[str, str]:
    """Convert a trial's identity to flat params: text as it is, everything else as JSON.

    A size with a letter also gives the letter under its own key, `tokenizer.encoder`, and one of
    several kinds its label, such as that of a quantizer under `tokenizer.quantizer`.
    """
    added = (_flatten(section, f"{name}.") for name, section in config.added.items())
    params = chain(_flatten(config, ""), *added)
    return {**dict(params), PARAM_TOKENIZER: config.tokenizer.name}


def stage_params(config: Config) -> dict[str, str]:
    """Convert the config of a stage to flat params, as `trial_params` does: all that it reads."""
    return dict(_flatten(config, ""))


def _flatten(config: Config, prefix: str) -> Iterator[tuple[str, str]]:
    for name, plain in canonical(config).items():
        key, value = prefix + name, getattr(config, name)
        if value is None and name in marked(type(config), FOUND):
            continue  # nothing was looked at: these are facts, and no choice of a user
        if value == UNREAD_SIZE:
            continue  # the architecture has none
        if isinstance(value, TransformerSize) and value.name:
            yield key, value.name
        if isinstance(value, NamedConfig):
            yield key, value.label
        if isinstance(value, Config):
            yield from _flatten(value, key + ".")
        else:
            yield key, plain if isinstance(plain, str) else json.dumps(plain)
