"""Tokenizers for tests: one that a real study trained, and one that nobody did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gigatok.config import SplitConfig
from gigatok.data.crops import UInt8
from gigatok.data.splits import load_split
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.training.saved import save_tokenizer
from orchestration import Study
from orchestration.sweep.definition import expand, load_sweep

SWEEP = """
question: Does a tokenizer leave home as it was trained?
scale: smoke
stages: [evaluate_reconstruction, train_generator]
axes:
  tokenizer.encoder: [S]
  tokenizer.decoder: [S]
set:
  evaluation.num_images: 64
"""


def run_study(folder: Path) -> Study:
    """Train a tokenizer and a generator in a study of one trial, `S-S`, or reuse them."""
    folder.mkdir(exist_ok=True)
    (folder / "home.yaml").write_text(SWEEP, encoding="utf-8")
    study = Study(str(folder / "home.yaml"), runs=folder / "runs")
    assert study.run(jobs=1).exit_code == 0, study.status()
    return study


def untrained_stage(folder: Path) -> Path:
    """Make a stage folder with fresh weights and no records."""
    (trial, *_) = expand(load_sweep("decoder_scaling", "smoke")).trials
    config = trial.config
    (folder / "out").mkdir(parents=True)
    save_tokenizer(folder / "out", GigaTok(config.tokenizer, config.data.image_size, 8))
    return folder


def noise(count: int, height: int, width: int) -> UInt8:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def digits() -> UInt8:
    """Load the validation images of the study."""
    split = SplitConfig(name="digits", split="val", image_size=16, images=64)
    return load_split(split).centred(np.arange(64))


def write_images(folder: Path, images: UInt8) -> Path:
    """Write images as `00000.png` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:05d}.png")
    return folder


def read_images(folder: Path) -> UInt8:
    return np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*.png"))])
