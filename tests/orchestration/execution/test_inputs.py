"""What a plan says of the data that it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from gigatok.data.asset_table import ASSETS
from orchestration.costs.calibration import Site
from orchestration.execution.inputs import Inputs, find_inputs
from orchestration.execution.progress import survey
from orchestration.plan.graph import make_plan
from orchestration.runs.state import Store
from orchestration.sweep.definition import expand, load_sweep


def inputs_of(folder: Path, scale: str) -> Inputs:
    sweep = load_sweep("decoder_scaling", scale, ["tokenizer.decoder=S"])
    plan = make_plan(sweep, expand(sweep))
    return find_inputs(survey(plan, Store(folder / "runs"), lambda stage: Site("CPU", 1, 1)))


def test_what_is_cached_is_told_from_what_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIGATOK_CACHE", str(tmp_path))
    monkeypatch.delenv("GIGATOK_CIFAR10", raising=False)
    (tmp_path / ASSETS["inception"].made.file).touch()
    found = inputs_of(tmp_path, "micro")
    assert found.here == ("inception",)
    assert {"fashion_mnist", "lpips_vgg"} <= set(found.fetched)
    assert not found.absent
    assert inputs_of(tmp_path, "smoke") == Inputs((), (), ())
