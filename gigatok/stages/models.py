"""Models among the inputs of a stage, whichever stage left them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gigatok.stages.registry import STAGES


def tokenizer_of(inputs: Mapping[str, Path]) -> Path:
    """Find the folder of the tokenizer among a stage's inputs, trained or adopted."""
    return _model_of(inputs, "tokenizer")


def generator_of(inputs: Mapping[str, Path]) -> Path:
    """Find the folder of the generator among a stage's inputs, trained or adopted."""
    return _model_of(inputs, "generator")


def _model_of(inputs: Mapping[str, Path], model: str) -> Path:
    # Exactly one: a trial trains a model or adopts it, never both.
    (folder,) = (folder for name, folder in inputs.items() if STAGES[name].model == model)
    return folder
