"""Ceilings: micro-batches that fit into memory, learnt from failures (`micro_batches.json`).

If a batch did not fit, half of it is stored for that model on that device, so that later stages of
the same model need not fail first.
"""

from __future__ import annotations

import json

from pydantic import PositiveInt, RootModel

from gigatok.config import (
    GeneratorArchitecture,
    TokenizerArchitecture,
    TokenizerConfig,
    TrainingConfig,
)
from gigatok.stages import STAGES
from orchestration.plan.identity import digest
from orchestration.runs.files import locked, write_atomic
from orchestration.runs.records import read_record
from orchestration.runs.stage_records import Spec
from orchestration.runs.state import StageFolder, Store

Ceilings = dict[str, dict[str, PositiveInt]]
"""Device -> model -> most samples per forward pass that a process may try."""


class CeilingsFile(RootModel[Ceilings]):
    """Content of `<runs>/micro_batches.json`."""


_MEMORY = ("precision", "activation_checkpointing", "parallel")
"""Training settings on which the memory of a sample depends."""


def training_of(spec: Spec) -> TrainingConfig | None:
    """Return the settings of a stage that trains; None for others, whose batches are fixed."""
    stage = STAGES[spec.stage]
    if not stage.trains:
        return None
    config = stage.config.model_validate(spec.config)
    training: TrainingConfig = getattr(config, str(stage.model))
    return training


def refusal(spec: Spec) -> str | None:
    """Say why a stage cannot run with a smaller micro-batch; None if it can."""
    training = training_of(spec)
    if training is None:
        return f"{spec.stage} has no micro-batch that could be made smaller"
    # The entropy loss is over the batch that it sees, so a smaller one is another loss.
    return training.needs_whole_batch if isinstance(training, TokenizerConfig) else None


def ceiling(folder: StageFolder, device: str) -> int | None:
    """Return the most samples per forward pass to try on a device; None: nothing is known."""
    spec = folder.spec()
    if refusal(spec) is not None:
        return None
    return _read(folder.store).get(device, {}).get(_model(spec))


def learn(folder: StageFolder, device: str, size: int) -> None:
    """Store that more than `size` samples per forward pass did not fit."""
    store, model = folder.store, _model(folder.spec())
    # Read and written under a lock: stages that run out of memory often do so together.
    with locked(store.root / ".micro_batches.lock"):
        known = _read(store)
        models = known.setdefault(device, {})
        # Never raised: a larger batch has failed, even if it fitted in a later stage by luck.
        models[model] = min(size, models.get(model, size))
        write_atomic(store.micro_batches, json.dumps(known, indent=1, sort_keys=True))


def _read(store: Store) -> Ceilings:
    known = read_record(store.micro_batches, CeilingsFile)
    # There is no file before the first failure.
    return {} if known is None else known.root


def _model(spec: Spec) -> str:
    """Name what the memory of a sample depends on: architecture, image side and precision.

    Losses are left out: if they matter, another half is learnt later.
    """
    training = training_of(spec)
    assert training is not None
    tokenizer = isinstance(training, TokenizerConfig)
    fields = (TokenizerArchitecture if tokenizer else GeneratorArchitecture).model_fields
    facts = training.model_dump(mode="json", include={*fields, *_MEMORY})
    image_size = spec.config.get("train", {}).get("image_size")
    text = json.dumps([spec.stage, image_size, facts], sort_keys=True)
    return f"{spec.readable}-{digest(text)}"
