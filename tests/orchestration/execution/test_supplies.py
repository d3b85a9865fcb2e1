"""What the user must supply is looked for by the plan, before anything runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.execution.inputs import find_inputs
from orchestration.execution.progress import survey
from orchestration.plan.graph import make_plan
from orchestration.runs.state import Store
from orchestration.sweep.definition import expand, load_sweep
from tests.gigatok.tiny_imagenet import train_samples, val_samples, write_folders, write_tars


@pytest.fixture(autouse=True)
def _nothing_supplied(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GIGATOK_IMAGENET", "GIGATOK_ADM_IMAGENET256", "GIGATOK_DINO"):
        monkeypatch.delenv(variable, raising=False)


def lines(root: Path, scale: str, *overrides: str) -> list[str]:
    sweep = load_sweep("decoder_scaling", scale, overrides)
    found = find_inputs(survey(make_plan(sweep, expand(sweep)), Store(root)))
    return [line for line in found.lines() if line.startswith("not on this machine")]


def test_a_plan_says_what_is_not_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lines(tmp_path, "smoke") == []
    judged = ("tokenizer.discriminator=dino", "evaluation.reference=adm_imagenet256")
    folder, reference, dino = sorted(lines(tmp_path, "paper", *judged))
    assert folder.startswith("not on this machine: data.name imagenet needs GIGATOK_IMAGENET: ")
    assert reference.endswith("adm_imagenet256 needs GIGATOK_ADM_IMAGENET256, which is not set")
    assert dino.endswith("tokenizer.discriminator dino needs GIGATOK_DINO, which is not set")
    write_folders(tmp_path / "images", "train", train_samples())
    monkeypatch.setenv("GIGATOK_IMAGENET", str(tmp_path / "images"))
    monkeypatch.setenv("GIGATOK_ADM_IMAGENET256", str(tmp_path / "none.npz"))
    monkeypatch.setenv("GIGATOK_DINO", __file__)
    missing = sorted(lines(tmp_path, "paper", *judged))
    assert [line.partition("; ")[0].partition(" in ")[0] for line in missing] == [
        f"not on this machine: {judged[1].replace('=', ' ')} needs GIGATOK_ADM_IMAGENET256, "
        f"which is {tmp_path}/none.npz and no file",
        "not on this machine: no val images of imagenet",
    ]
    write_tars(tmp_path / "images", "val", val_samples())
    assert len(lines(tmp_path, "paper", *judged)) == 1


@pytest.mark.heavy
def test_looking_for_it_imports_no_torch() -> None:
    code = (
        "import sys, gigatok.data.imagenet.place, gigatok.data.supplies; "
        "print('torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "False"
