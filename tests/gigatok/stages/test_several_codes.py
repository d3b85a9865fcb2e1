"""Stages behind a quantizer with several codes per token: codes, AR probe, samples, Python."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import gigatok
from gigatok.config import CodesConfig, GeneratorConfig, SamplingConfig, SplitConfig
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.tracker import MemoryTracker
from gigatok.scores.sampling import generate
from gigatok.stages.extract_codes.run import run as extract
from gigatok.stages.extract_codes.spec import ExtractCodesConfig
from gigatok.stages.train_generator.run import run as train_generator
from gigatok.stages.train_generator.spec import TrainGeneratorConfig
from gigatok.training.saved import Codes, load_generator, save_tokenizer
from tests.gigatok.counted_flops import NARROW, training

DEPTH, SIZE, TOKENS = 3, 16, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a tokenizer of random weights and what later stages make with it."""
    folder = tmp_path_factory.mktemp("stages")
    torch.manual_seed(0)
    quantizer = {"name": "rvq", "depth": DEPTH}
    tokenizer = training("1d", codebook_size=SIZE, quantizer=quantizer)
    save_tokenizer(folder / "train_tokenizer", GigaTok(tokenizer, 16, 12, 4).eval())
    generator = GeneratorConfig(size=NARROW, steps=2, batch_size=4, lr=1e-3, ffn_multiple_of=32)
    train_generator(
        TrainGeneratorConfig(generator=generator, seed=0),
        {"extract_codes": extracted(folder)[0]},
        folder / "train_generator",
        MemoryTracker(),
        Runtime(folder / "work" / "train_generator"),
    )
    return folder


def extracted(folder: Path) -> tuple[Path, Scores]:
    """Extract codes with the tokenizer of a folder; returns where, and their scores."""
    config = ExtractCodesConfig(
        train=SplitConfig(name="digits", split="train", image_size=16, images=40),
        val=SplitConfig(name="digits", split="val", image_size=16, images=20),
        codes=CodesConfig(flip=False),
    )
    inputs, out = {"train_tokenizer": folder / "train_tokenizer"}, folder / "extract_codes"
    return out, extract(config, inputs, out, MemoryTracker(), Runtime(folder / "work" / "codes"))


def test_codes_of_a_token_follow_each_other(folder: Path) -> None:
    codes = Codes.load(folder / "extract_codes")
    assert codes.val.shape == (20, TOKENS * DEPTH)
    assert codes.codebook_size == SIZE
    assert codes.val.max() < SIZE


def test_usage_is_over_the_entries_of_all_codebooks(folder: Path) -> None:
    out, scores = extracted(folder)
    codes = Codes.load(out).val.long().view(-1, DEPTH)
    used = sum(len(codes[:, depth].unique()) for depth in range(DEPTH))
    assert scores.metrics["codebook_usage"] == used / (DEPTH * SIZE)


def test_the_probe_draws_codes_that_can_be_decoded(folder: Path) -> None:
    generator = load_generator(folder / "train_generator", "cpu")
    assert generator.num_tokens == TOKENS * DEPTH
    random = torch.Generator().manual_seed(0)
    drawn = generate(generator, torch.tensor([1, 2]), SamplingConfig(num_images=4), random)
    tokenizer = gigatok.load(folder / "train_tokenizer")
    assert (tokenizer.tokens, tokenizer.codebook_size) == (TOKENS * DEPTH, SIZE)
    assert tokenizer.decode(drawn.numpy()).shape == (2, 16, 16, 3)
