"""Adopted checkpoints in a sweep: identity, the graph, a real launch, and what is refused."""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gigatok import names
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.tokenizer.tokenizer import GigaTok
from orchestration.plan.graph import Plan, make_plan
from orchestration.runs.stage_records import Done
from orchestration.runs.state import StageFolder
from orchestration.sweep.definition import SweepError, expand, load_sweep

ROOT = Path(__file__).resolve().parents[2]
SWEEP = """\
question: Is what others trained any better?
scale: smoke
set:
  tokenizer.encoder: S
  tokenizer.decoder: B
axes:
  adopt.tokenizer: [null, tok.pt]
"""
AR = ("tokenizer.encoder=S", "tokenizer.decoder=B")


def write_checkpoints(folder: Path, seed: int = 0) -> None:
    """Untrained models of the sizes that smoke has, as the reference's trainers save them."""
    trial = expand(load_sweep("decoder_scaling", "smoke", [*AR])).trials[0].config
    torch.manual_seed(seed)
    tokenizer = GigaTok(trial.tokenizer, trial.data.image_size, teacher_dim=12)
    generator = LlamaGen(
        trial.generator,
        trial.tokenizer.codebook_size,
        trial.data.num_classes,
        trial.tokenizer.num_latent_tokens,
    )
    args = argparse.Namespace(lr=1e-4)
    for name, model in (("tok.pt", tokenizer), ("gpt.pt", generator)):
        content = {"model": model.state_dict(), "steps": 1000, "args": args}
        torch.save(content, folder / name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a sweep and two checkpoints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIGATOK_CACHE", str(tmp_path / "cache"))
    write_checkpoints(tmp_path)
    (tmp_path / "adopting.yaml").write_text(SWEEP)
    return tmp_path


def plan(*overrides: str) -> Plan:
    sweep = load_sweep("adopting.yaml", None, overrides)
    return make_plan(sweep, expand(sweep))


def stages(planned: Plan, trial: str) -> dict[str, str]:
    (found,) = [dict(t.stages) for t in planned.trials if t.trial.name == trial]
    return found


@pytest.mark.usefixtures("folder")
def test_an_adopted_tokenizer_stands_in_for_training_and_its_teacher() -> None:
    planned = plan()
    trained, adopted = stages(planned, "tokenizer=trained"), stages(planned, "tokenizer=tok.pt")
    assert trained.keys() - adopted.keys() == {"extract_teacher_features", "train_tokenizer"}
    assert adopted.keys() - trained.keys() == {"adopt_tokenizer"}
    shared = {
        stage for stage in trained.keys() & adopted.keys() if trained[stage] == adopted[stage]
    }
    assert shared == {"extract_reference_features"}
    both = stages(plan("adopt.tokenizer=tok.pt", "adopt.generator=gpt.pt"), "S-B")
    assert {"adopt_tokenizer", "adopt_generator", "evaluate_generation"} <= both.keys()
    assert "train_generator" not in both


def test_the_content_of_the_file_is_identity_and_its_path_is_not(folder: Path) -> None:
    before = stages(plan("adopt.tokenizer=tok.pt"), "S-B")
    (folder / "elsewhere").mkdir()
    (folder / "tok.pt").rename(folder / "elsewhere" / "other.pt")
    assert stages(plan("adopt.tokenizer=elsewhere/other.pt"), "S-B") == before
    write_checkpoints(folder, seed=1)
    after = stages(plan("adopt.tokenizer=tok.pt"), "S-B")
    same = {stage for stage in before if before[stage] == after[stage]}
    assert same == {"extract_reference_features"}


def test_what_only_training_reads_does_not_make_another_adopted_tokenizer(folder: Path) -> None:
    one = stages(plan("adopt.tokenizer=tok.pt"), "S-B")
    for override in ("tokenizer.lr=5e-3", "tokenizer.entropy_weight=0.1", "data.train_images=100"):
        other = stages(plan("adopt.tokenizer=tok.pt", override), "S-B")
        assert other["adopt_tokenizer"] == one["adopt_tokenizer"], override
    wider = stages(plan("adopt.tokenizer=tok.pt", "tokenizer.codebook_size=128"), "S-B")
    assert wider["adopt_tokenizer"] != one["adopt_tokenizer"]
    (folder / "adopting.yaml").write_text(SWEEP + "seeds: [0, 1]\n")
    seeds = [stage.stage for stage in plan("adopt.tokenizer=tok.pt").stages.values()]
    assert seeds.count("adopt_tokenizer") == 1
    assert seeds.count("train_generator") == 2


def test_files_of_one_name_are_told_apart(folder: Path) -> None:
    (folder / "b").mkdir()
    (folder / "b" / "tok.pt").write_bytes((folder / "gpt.pt").read_bytes())
    (folder / "adopting.yaml").write_text(SWEEP.replace("null", "b/tok.pt"))
    assert [t.trial.name for t in plan().trials] == ["tokenizer=b/tok.pt", "tokenizer=tok.pt"]


def test_a_file_that_cannot_be_read_is_refused_by_the_plan(folder: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), folder / "tok.pt")
    with pytest.raises(
        SweepError, match=r"yaml:7: axes\.adopt\.tokenizer: .*Linear.*weights alone"
    ):
        plan()


def test_wrong_requests_name_file_line_and_key(folder: Path) -> None:
    (folder / "adopting.yaml").write_text(SWEEP.replace("tok.pt", "none.pt"))
    with pytest.raises(SweepError, match=r"yaml:7: axes\.adopt\.tokenizer: .*none\.pt is no file"):
        plan()
    (folder / "adopting.yaml").write_text(
        SWEEP.replace("adopt.tokenizer: [null, tok", "adopt.generator: [null, gpt")
    )
    with pytest.raises(SweepError, match=r"yaml:7: axes\.adopt\.generator: .*adopt\.tokenizer"):
        plan()
    (folder / "adopting.yaml").write_text(SWEEP + "stages: [train_tokenizer]\n")
    with pytest.raises(ValueError, match=r"tokenizer=tok\.pt has none of the stages"):
        plan()


# ── a real launch ──────────────────────────────────────────────────────────────────────────────


def launch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestration.launch", "adopting.yaml", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def done(folder: Path, stage: str) -> Done:
    (path,) = (folder / "runs" / "stages" / stage).glob("[!.]*")
    record = StageFolder.at(path).done()
    assert record is not None
    return record


def tags(folder: Path, kind: str) -> dict[str, str]:
    """Origin tags of the runs of a kind."""
    query = (
        "select t.key, t.value from tags t join tags k on k.run_uuid = t.run_uuid "
        "where k.key = ? and k.value = ? and t.key like ?"
    )
    given = (names.TAG_KIND, kind, names.PREFIX_ORIGIN + "%")
    with sqlite3.connect(folder / "runs" / "mlflow.db") as store:
        return dict(store.execute(query, given).fetchall())


@pytest.mark.slow
@pytest.mark.heavy
def test_adopted_models_go_through_the_whole_graph_once(folder: Path) -> None:
    arguments = ("--set", "adopt.tokenizer=tok.pt", "--set", "adopt.generator=gpt.pt")
    result = launch(folder, *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "adopted + adopted" in result.stdout
    shown = result.stdout.replace("\n", "")
    assert f"adopted, not trained: S-B tokenizer from {folder.resolve()}/tok.pt" in shown
    assert "7 stages run, 0 reused, 0 failed" in result.stdout
    tokenizer = done(folder, "adopt_tokenizer")
    assert set(tokenizer.artifacts) == {"model.safetensors", "model.json", "origin.json"}
    assert tokenizer.origin["steps"] == "1000"
    assert done(folder, "adopt_generator").metrics["ar_val_loss"] > 0
    assert "gfid" in done(folder, "evaluate_generation").metrics
    digest = tokenizer.origin["sha256"]
    trial = tags(folder, names.KIND_TRIAL)
    assert trial[names.PREFIX_ORIGIN + "adopt_tokenizer.sha256"] == digest
    assert trial[names.PREFIX_ORIGIN + "adopt_generator.file"] == "gpt.pt"
    assert names.PREFIX_ORIGIN + "sha256" in tags(folder, names.KIND_STAGE)
    again = launch(folder, *arguments)
    assert "0 stages run, 7 reused, 0 failed" in again.stdout
