"""A tokenizer and a generator from outside the repository, through a whole smoke study."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import gigatok
from gigatok.config import TrialConfig
from gigatok.config.kinds.generators import GENERATORS
from gigatok.config.kinds.tokenizers import TOKENIZERS
from gigatok.contracts import generator, tokenizer
from gigatok.contracts.running import broken_by_running
from gigatok.stages import STAGES
from orchestration import Study
from orchestration.sweep.definition import expand, load_sweep
from tests.restoring import restored_registries

pytestmark = pytest.mark.slow
PAGE = Path(__file__).resolve().parents[2] / "docs" / "tasks" / "write_a_plugin.md"
GRU = '''
"""A recurrent generator: its settings."""

from typing import Literal

from gigatok.config.kinds.generators import GeneratorKind, GeneratorKindConfig, register


class GRUConfig(GeneratorKindConfig):
    name: Literal["gru"]
    width: int = 32

    def probed_layers(self, generator):
        return 1

    def probed_width(self, generator):
        return self.width


register(GeneratorKind(GRUConfig, module=f"{__name__}.network:GRUGenerator"))
'''
GRU_NETWORK = """
import torch
from torch import nn

from gigatok.models.generator.base import Generator


class GRUGenerator(Generator):
    def __init__(self, config, codebook_size, num_classes, *args, **options):
        super().__init__(config, codebook_size, num_classes, *args, **options)
        width = config.architecture.width
        self.classes = nn.Embedding(num_classes + 1, width)
        self.codes = nn.Embedding(codebook_size, width)
        self.cell = nn.GRU(width, width, batch_first=True)
        self.output = nn.Linear(width, codebook_size)

    def forward(self, codes_BT, classes_B):
        return self.output(self._states(codes_BT, self.drop_classes(classes_B)))

    def features(self, codes_BT, layer, classes_B=None):
        classes_B = self.no_classes(codes_BT) if classes_B is None else classes_B
        return self._states(codes_BT, classes_B)

    def _states(self, codes_BT, classes_B):
        first_B1D = self.classes(classes_B).unsqueeze(1)
        return self.cell(torch.cat([first_B1D, self.codes(codes_BT[:, :-1])], dim=1))[0]

    def allocate_cache(self, batch_size):
        return []

    def first_logits(self, classes_B, cache):
        return self._next(self.classes(classes_B), cache)

    def next_logits(self, codes_B, position, cache):
        return self._next(self.codes(codes_B), cache)

    def _next(self, x_BD, cache):
        out_B1D, state = self.cell(x_BD.unsqueeze(1), *cache)
        cache[:] = [state]
        return self.output(out_B1D.squeeze(1))
"""
SWEEP = """
question: Do convolutions and a recurrent net do?
scale: smoke
plugins: [../own/conv, ../own/gru]
axes: {tokenizer.architecture: [{name: conv}]}
set:
  tokenizer.semantic_weight: 0
  generator.architecture: {name: gru, width: 24}
  tokenizer_probe.features: latents
derive: {encoder: params.encoder, tokenizer: params.tokenizer, generator: params.generator}
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    """A study that has run; what its plug-ins have registered is undone."""
    place = tmp_path_factory.mktemp("models")
    section = PAGE.read_text(encoding="utf-8").partition("## Another tokenizer")[2]
    settings, network = re.findall(r"```python\n(.*?)```", section, re.S)[:2]
    files = {
        **{"own/conv/__init__.py": settings, "own/conv/network.py": network},
        **{"own/gru/__init__.py": GRU, "own/gru/network.py": GRU_NETWORK},
        "work/own.yaml": SWEEP,
    }
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    with restored_registries():
        study = Study(str(place / "work" / "own.yaml"), runs=place / "runs")
        assert study.run(jobs=2).exit_code == 0, study.status()
        yield study


@pytest.fixture(scope="module")
def trial(study: Study) -> TrialConfig:
    (trial,) = expand(load_sweep(study.sweep)).trials
    assert trial.name == "conv"
    # Two convolutions of 4 x 4: 3 to 16 channels, and 16 to the 8 of a code, with their biases.
    assert trial.derived["encoder"] == 48 * 16 + 16 + 256 * 8 + 8
    assert trial.config.tokenizer.bits_per_image(16) == 16 * 6
    return trial.config


def test_every_stage_has_its_scores(study: Study) -> None:
    (row,) = study.table()
    for name in (
        *("rfid", "psnr", "codebook_usage", "ar_val_loss", "gfid", "probe_accuracy"),
        *("tokenizer_probe_accuracy", "params_encoder", "params_decoder"),
    ):
        assert row[name] is not None, name
    assert row["params_head"] == 0  # there is no teacher
    assert row["params_total"] == row["params_encoder"] + row["params_decoder"] + 64 * 8


@pytest.mark.parametrize("stage", ["train_tokenizer", "train_generator"])
def test_interrupted_training_ends_in_the_same_bits(
    stage: str, study: Study, trial: TrialConfig, tmp_path: Path
) -> None:
    kind = STAGES[stage]
    inputs = {name: study.output("conv", name) for name in kind.inputs_of(trial)}
    assert broken_by_running(kind, trial, kind.read(trial), inputs, tmp_path) == []


def test_the_trained_tokenizer_serves_elsewhere(study: Study) -> None:
    found = gigatok.load(study.output("conv", "train_tokenizer"))
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    codes = found.encode(images)
    assert codes.shape == (3, 16)
    assert found.decode(codes).shape == images.shape


@pytest.mark.usefixtures("study")
def test_both_keep_their_contracts() -> None:
    assert tokenizer.broken_promises(TOKENIZERS["conv"]) == []
    assert generator.broken_promises(GENERATORS["gru"]) == []
