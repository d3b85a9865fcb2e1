"""Take a tokenizer from a file, published or other people's, in place of training one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from gigatok.files.stored_weights import StoredWeights
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.published.adopting import adopt, origin, read_planned
from gigatok.published.fitting import HEAD, has_head, with_head_of
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.tracker import Tracker
from gigatok.stages.adopt_tokenizer.spec import AdoptTokenizerConfig
from gigatok.stages.train_tokenizer.scoring import parameter_scores
from gigatok.training.saved import save_tokenizer


def run(
    config: AdoptTokenizerConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Convert; leave `model.safetensors`, `model.json`, `origin.json`. Metrics: as of training.

    Raises:
        ValueError: the file has changed or holds another tokenizer than the trial describes.
    """
    stored = read_planned(config.file, config.architecture)
    if has_head(stored) and config.architecture.semantic_weight == 0:
        raise ValueError(
            f"{config.file.path} holds a semantic head, so it was trained with semantic "
            "regularisation; the trial has tokenizer.semantic_weight 0"
        )
    tokenizer = _empty(config, stored)
    report = adopt(config.architecture.name, tokenizer, stored, config.file)
    save_tokenizer(output_dir, tokenizer)
    head = "with" if report.has_head else "without"
    protocol = f"with codebook, {head} training-only semantic head; adopted"
    scores = parameter_scores(tokenizer.config, config.image_size, tokenizer.teacher_dim, protocol)
    return replace(scores, origin=origin(config.file, report, config.architecture, output_dir))


def _empty(config: AdoptTokenizerConfig, stored: StoredWeights) -> GigaTok:
    """Build the module without memory, with a head of the width that the weights have."""
    # Layer 4 of the head's `Sequential` is its last; its rows are the teacher's channels.
    last = [key for key in stored.tensors if HEAD in key and key.endswith("4.weight")]
    width = stored.tensors[last[0]].shape[0] if last else 0
    with torch.device("meta"):
        # A file without the head gives a tokenizer without it, whatever the trial says.
        architecture = with_head_of(config.architecture, stored)
        return GigaTok(architecture, config.image_size, teacher_dim=width)
