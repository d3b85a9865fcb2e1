"""Plans with a quantizer that does not describe its layers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gigatok import plugins
from gigatok.config.kinds.quantizers import QUANTIZERS
from gigatok.models import traced
from gigatok.models.traced import TraceError
from orchestration.costs.cost import Cost, predict
from orchestration.plan.graph import make_plan
from orchestration.sweep.definition import expand, load_sweep

pytestmark = pytest.mark.heavy  # starts Python with torch

# The built-in `fsq` under another name and without its layout.
PLUGIN = """
from typing import Literal

from gigatok.config.kinds.quantizers import FiniteScalarConfig, QuantizerKind, register


class MirrorConfig(FiniteScalarConfig):
    name: Literal["mirror"]


def built(config):
    from gigatok.models.quantizers.fsq import FiniteScalarQuantizer

    return FiniteScalarQuantizer(config)


register(QuantizerKind(MirrorConfig, module=f"{__name__}:built"))
"""
SWEEP = """
question: Are costs the same without a layout?
scale: smoke
plugins: [./mirror.py]
axes:
  tokenizer.decoder: [S]
  tokenizer.lr: [1e-4, 2e-4, 3e-4]
  tokenizer.steps: [6, 12]
set: {tokenizer.encoder: S, tokenizer.quantizer: {name: NAME, levels: [4, 4, 4]}}
seeds: [0, 1, 2]
stages: [train_tokenizer]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("GIGATOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(traced, "_known", {})
    loaded, quantizers = dict(plugins.LOADED), dict(QUANTIZERS)
    (tmp_path / "mirror.py").write_text(PLUGIN)
    yield tmp_path
    for registry, entries in ((plugins.LOADED, loaded), (QUANTIZERS, quantizers)):
        registry.clear()
        registry.update(entries)  # type: ignore[attr-defined]


def costs(folder: Path, name: str) -> list[Cost]:
    (folder / "mirrored.yaml").write_text(SWEEP.replace("NAME", name))
    sweep = load_sweep(str(folder / "mirrored.yaml"))
    plan = make_plan(sweep, expand(sweep))
    found = predict(plan)
    return [found[key] for key, stage in plan.stages.items() if stage.stage == "train_tokenizer"]


def test_costs_are_those_of_a_layout_and_measured_once(folder: Path) -> None:
    described, measured = costs(folder, "fsq"), costs(folder, "mirror")
    assert len(measured) == 3 * 2 * 3
    assert [cost.flops for cost in measured] == [cost.flops for cost in described]
    assert [c.disk_bytes for c in measured] == [c.disk_bytes for c in described]
    memory = [cost.memory_bytes for cost in described]
    assert [cost.memory_bytes for cost in measured] == pytest.approx(memory, rel=0.1)
    # The search for codes, and a step of training: rate, steps and seed are not its business.
    assert len(list((folder / "cache" / "traced").iterdir())) == 2


def test_a_broken_module_is_named_when_it_is_planned(folder: Path) -> None:
    (folder / "mirror.py").write_text(
        PLUGIN.replace("(config)\n\n\nregister", "(3)\n\n\nregister")
    )
    line = PLUGIN[: PLUGIN.index("return Finite")].count("\n") + 1
    with pytest.raises(
        TraceError, match=r"built of plug-in \./mirror\.py: AttributeError"
    ) as caught:
        costs(folder, "mirror")
    assert f"mirror.py, line {line})" in str(caught.value)
