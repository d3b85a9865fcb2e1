"""Params of runs in MLflow: identity as flat texts. Other facts of a run are tags.

A trial has some 150. Those that all trials share are params of the sweep's run, so that a trial
shows what sets it apart. Its own win over the shared ones: MLflow never changes a param, and a
plan may grow by a trial that differs in what all shared before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from gigatok.config import (
    FOUND,
    Config,
    NamedConfig,
    TransformerSize,
    TrialConfig,
    marked,
)
from gigatok.config.fields.base import UNREAD_SIZE
from gigatok.names import PARAM_SEED, PARAM_TOKENIZER
from orchestration.plan.identity import canonical


def trial_params(config: TrialConfig) -> dict[str, str]:
    """Convert a trial's identity to flat params: text as it is, everything else as JSON.

    A size with a letter also gives the letter under its own key, `tokenizer.encoder`, and one of
    several kinds its label, such as that of a quantizer under `tokenizer.quantizer`.
    """
    added = (_flatten(section, f"{name}.") for name, section in config.added.items())
    params = chain(_flatten(config, ""), *added)
    return {**dict(params), PARAM_TOKENIZER: config.tokenizer.name}


def shared_params(trials: Sequence[Mapping[str, str]], varied: Sequence[str]) -> dict[str, str]:
    """Select the params that are equal in all trials of a sweep.

    Args:
        trials: all params of each trial.
        varied: axes of the sweep. They stay with the trials, also where only one value is there
            yet, as do the seed and the tokenizer's name.
    """
    first, *rest = trials or [{}]
    apart = (PARAM_SEED, PARAM_TOKENIZER, *varied)
    below = tuple(f"{axis}." for axis in varied)
    return {
        key: value
        for key, value in first.items()
        if key not in apart
        and not key.startswith(below)
        and all(other.get(key) == value for other in rest)
    }


def own_params(trial: Mapping[str, str], shared: Mapping[str, str]) -> dict[str, str]:
    """Select the params of a trial that the sweep's run does not say; null for one it lacks."""
    own = {key: value for key, value in trial.items() if shared.get(key) != value}
    return own | {key: "null" for key in shared if key not in trial}


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
