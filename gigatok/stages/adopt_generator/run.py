"""Take a generator from a file in place of training one, and measure it on the codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from gigatok.models.generator.generator import LlamaGen
from gigatok.published.adopting import adopt, origin, read_planned
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.tracker import Tracker
from gigatok.stages.adopt_generator.spec import AdoptGeneratorConfig
from gigatok.stages.train_generator.scoring import score_generator
from gigatok.training.saved import Codes, save_generator


def run(
    config: AdoptGeneratorConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Convert; leave `model.safetensors`, `model.json`, `origin.json`. Metrics: as of training.

    Raises:
        ValueError: the file has changed or holds another generator than the trial describes.
    """
    stored = read_planned(config.file, config.architecture)
    codes = Codes.load(inputs["extract_codes"])
    tokens = codes.val.shape[1]
    # Without memory: `fill` assigns the tensors of the file.
    with torch.device("meta"):
        generator = LlamaGen(config.architecture, codes.codebook_size, codes.num_classes, tokens)
    report = adopt("the trial's generator", generator, stored, config.file, runtime.device)
    save_generator(output_dir, generator, codes)
    scores = score_generator(generator, codes, runtime.device)
    # Written last, with what was found to fit.
    return replace(scores, origin=origin(config.file, report, config.architecture, output_dir))
