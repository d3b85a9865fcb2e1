"""`check`: what it says of a plug-in, and with which exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.orchestration.programs import ROOT, call

EXAMPLE = ROOT / "examples" / "plugin" / "gigatok_example"
RANDOM_QUANTIZER = '''
"""A quantizer that draws from a source without a seed."""

import os
from dataclasses import replace
from typing import Literal

import torch
from gigatok.config.kinds.quantizers import QUANTIZERS, FiniteScalarConfig, register


class RandomConfig(FiniteScalarConfig):
    name: Literal["random"]


register(replace(QUANTIZERS["fsq"], config=RandomConfig, module=f"{__package__}.made:Random"))
'''
MODULE = """
import os

import torch
from gigatok.models.quantizers.fsq import FiniteScalarQuantizer


class Random(FiniteScalarQuantizer):
    def bound(self, z_MC):
        noise = [byte / 2550 for byte in os.urandom(z_MC.numel())]
        return super().bound(z_MC + torch.tensor(noise).view(z_MC.shape))
"""
pytestmark = pytest.mark.heavy


@pytest.mark.slow
def test_contracts_of_the_example(tmp_path: Path) -> None:
    shown = call(tmp_path, "gigatok", "check", str(EXAMPLE), "--no-trials").stdout
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for thing in ("quantizer ternary 9/9", "data set stripes 7/7", "metric brightness 4/4"):
        assert any(line.startswith(thing) for line in lines), shown
    assert "all promises are kept" in lines[-1]


def test_what_cannot_be_loaded_or_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("x = 1\n1 / 0\n")
    said = call(tmp_path, "gigatok", "check", "broken.py", code=2).stderr
    assert "plug-in broken.py: ZeroDivisionError" in said
    assert "broken.py, line 2" in said
    (tmp_path / "empty.py").write_text("x = 1\n")
    said = call(tmp_path, "gigatok", "check", "empty.py", code=2).stderr
    assert "plug-in empty.py registers nothing" in said


@pytest.mark.slow
def test_a_random_source_is_found_twice(tmp_path: Path) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").write_text(RANDOM_QUANTIZER)
    (tmp_path / "lab" / "made.py").write_text(MODULE)
    said = call(tmp_path, "gigatok", "check", "./lab", "--kind", "quantizer", code=1).stdout
    assert "quantizer random: two of the same seed give other outputs" in said
    how = "stopped half-way and gone on with, it leaves another"
    assert f"quantizer random: stage train_tokenizer: {how} model.safetensors" in said
    assert [path.name for path in tmp_path.iterdir()] == ["lab"]  # smoke trials leave nothing
