"""Names that an expression of a sweep may use: config keys, and quantities computed from them.

Every name lists the keys that it reads. So its value is computed once per combination of these,
and an entry of `solve` knows what it depends on.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from gigatok.config import (
    SAME_COST,
    SAME_FLOPS,
    SECTIONS,
    GeneratorArchitecture,
    TokenizerArchitecture,
    TransformerSize,
    TrialConfig,
    marked,
)
from gigatok.models.generator.layout import generator_parameters
from gigatok.models.tokenizer.layout import TokenizerParts, tokenizer_flops, tokenizer_parameters
from gigatok.stages import STAGES
from orchestration.sweep.formulas.expressions import Value
from orchestration.sweep.settings.keys import (
    SEED,
    SIZE_FIELDS,
    trial_keys,
    while_sections_last,
)
from orchestration.yaml.source import did_you_mean, listed


@dataclass(frozen=True)
class Quantity:
    """Name that an expression may use.

    Attributes:
        of: computes its value for a trial.
        reads: config keys that it depends on.
        text: description in words.
    """

    of: Callable[[TrialConfig], Value]
    reads: frozenset[str]
    text: str


def _keys(*beginnings: str) -> frozenset[str]:
    return frozenset(key for key in trial_keys() if key.startswith(beginnings))


def _architecture(section: str, kind: type[Any]) -> frozenset[str]:
    """List the keys of a model's architecture, without the keys of its training."""
    return _keys(*(f"{section}.{name}" for name in kind.model_fields))


def _counted(*sections: str) -> frozenset[str]:
    """List the keys of whole sections on which FLOPs can depend."""
    # Too many keys cost time, a missing one gives wrong values: so all but the marked ones.
    without = {
        f"{section}.{name}"
        for section in sections
        for name in marked(SECTIONS[section], SAME_COST, SAME_FLOPS)
    }
    return _keys(*(f"{section}." for section in sections)) - without


def _tokenizer_parameters(trial: TrialConfig) -> TokenizerParts[int]:
    return tokenizer_parameters(trial.tokenizer, trial.data.image_size)


def _tokens(trial: TrialConfig) -> int:
    return trial.tokenizer.tokens_per_image(trial.data.image_size)


def _generator_parameters(trial: TrialConfig) -> int:
    tokenizer, data = trial.tokenizer, trial.data
    length = tokenizer.sequence_length(data.image_size)
    return generator_parameters(trial.generator, tokenizer.vocabulary, data.num_classes, length)


def _parameters_by(get: Callable[[TokenizerParts[int]], int]) -> Callable[[TrialConfig], Value]:
    return lambda trial: get(_tokenizer_parameters(trial))


def _per_image(part: str) -> Callable[[TrialConfig], Value]:
    return lambda trial: getattr(tokenizer_flops(trial.tokenizer, trial.data.image_size), part)


def _total_flops(trial: TrialConfig) -> float:
    # Only stages that the trial has: adopted weights need no training.
    stages = [stage for stage in STAGES.values() if stage.applies(trial)]
    return float(sum(s.costs.flops(trial) for s in stages if s.costs is not None))


def _flops_of(stage: str) -> Callable[[TrialConfig], Value]:
    costs = STAGES[stage].costs
    assert costs is not None, stage
    return lambda trial: float(costs.flops(trial))


@while_sections_last
def quantities() -> dict[str, Quantity]:
    """Map every computed name to its quantity."""
    # The smallest set of keys that decides each value: it decides how often it is computed.
    shape = _architecture("tokenizer", TokenizerArchitecture) | {"data.image_size"}
    generator = _architecture("generator", GeneratorArchitecture) | {"data.name"} | _keys(
        "data.image_size", "tokenizer.variant", "tokenizer.cnn.", "tokenizer.num_latent_tokens",
        "tokenizer.codebook_size", "tokenizer.quantizer", "tokenizer.architecture",
    )  # fmt: skip
    added = SECTIONS.keys() - TrialConfig.model_fields
    training = _counted("tokenizer", "data") | {"adopt.tokenizer"}
    probe = generator | _keys("data.", "generator.steps", "generator.batch_size", "generator.act")
    parts: dict[str, tuple[str, Callable[[TokenizerParts[int]], int]]] = {
        "params.encoder": ("parameters of the encoder", lambda p: p.encoder),
        "params.decoder": ("parameters of the decoder", lambda p: p.decoder),
        "params.codebook": ("parameters of the codebook", lambda p: p.codebook),
        "params.head": ("training-only parameters", lambda p: p.head),
        "params.tokenizer": ("parameters of the tokenizer, without the training-only head",
                             lambda p: p.total - p.head),
    }  # fmt: skip
    found = {
        name: Quantity(_parameters_by(get), shape, text) for name, (text, get) in parts.items()
    }
    return found | {
        "params.generator": Quantity(_generator_parameters, generator, "AR probe's parameters"),
        "flops.encoder": Quantity(_per_image("encode"), shape, "FLOPs of encoding an image"),
        "flops.decoder": Quantity(_per_image("decoder"), shape, "FLOPs of decoding an image"),
        "flops.train": Quantity(
            _flops_of("train_tokenizer"), training, "FLOPs of training a tokenizer"
        ),
        "flops.generator": Quantity(
            _flops_of("train_generator"), probe, "FLOPs of training the AR probe"
        ),
        "flops.total": Quantity(
            _total_flops,
            _counted("tokenizer", "generator", "data", *added) | _keys(
                "codes.", "sampling.", "evaluation.", "probe.", "tokenizer_probe.", "adopt.",
                "guidance.",
            ),
            "FLOPs of all stages of the trial that have costs",
        ),
        "tokens": Quantity(_tokens, shape, "tokens per image"),
        "codes_per_image": Quantity(
            lambda t: t.tokenizer.sequence_length(t.data.image_size), shape, "codes per image"
        ),
        "vocabulary": Quantity(lambda t: t.tokenizer.vocabulary, shape, "values of a code"),
        "bits_per_image": Quantity(
            lambda t: t.tokenizer.bits_per_image(t.data.image_size), shape, "bits per image"
        ),
    }  # fmt: skip


def computed(name: str, config: TrialConfig) -> Value | None:
    """Compute a quantity of a recorded trial; None where that takes a plug-in that is gone."""
    try:
        return quantities()[name].of(config)
    except (ValueError, LookupError, AttributeError, TypeError):
        return None


def quantity(name: str) -> Quantity | None:
    """Find the meaning of a name, computed or a config key; None if it is neither."""
    key = trial_keys().get(name)
    parent, _, part = name.rpartition(".")
    # A size compares as its letter, as it is written in an axis.
    if key is not None and key.is_size:
        get = attrgetter(name)
        return Quantity(lambda trial: size_label(get(trial)), frozenset([name]), "a size")
    # One of several configs compares as its name: `tokenizer.quantizer == 'fsq'`.
    if key is not None and key.kinds:
        return Quantity(attrgetter(f"{name}.name"), frozenset([name]), listed(key.kinds))
    if key is not None:
        return Quantity(attrgetter(name), frozenset([name]), key.allowed)
    if is_size_part(name):
        return Quantity(attrgetter(name), frozenset([parent]), f"{part} of a size")
    if name == SEED:
        return Quantity(attrgetter(name), frozenset([SEED]), "the seed")
    return quantities().get(name)


def is_size_part(name: str) -> bool:
    """Tell whether a name is a part of a size, such as `tokenizer.decoder.layers`."""
    parent, _, part = name.rpartition(".")
    return part in SIZE_FIELDS and parent in trial_keys() and trial_keys()[parent].is_size


def size_label(size: TransformerSize) -> str:
    """Label a size by its letter, or by its numbers if it has none."""
    return size.name or f"{size.width}x{size.layers}x{size.heads}"


def known_names(derived: Iterable[str] = ()) -> list[str]:
    """List every name that an expression may use."""
    sizes = [
        f"{name}.{part}"
        for name, key in trial_keys().items()
        if key.is_size
        for part in SIZE_FIELDS
    ]
    return [*derived, *quantities(), *trial_keys(), *sizes, SEED]


def unknown_name(name: str, derived: Iterable[str]) -> str:
    """Say that a name is unknown, and which known names are near it."""
    known = known_names(derived)
    near = difflib.get_close_matches(name, known, n=4, cutoff=0.5)
    ends = [key for key in known if key.rpartition(".")[2] == name.rpartition(".")[2]]
    hint = did_you_mean(name, known) or (f"; did you mean '{ends[0]}'?" if ends else "")
    # With fewer than two near names the computed ones are the better hint.
    names = listed([*derived, *quantities()] if len(near) < 2 else near)
    return f"unknown name {name!r}; a name is a config key, or such as {names}{hint}"
