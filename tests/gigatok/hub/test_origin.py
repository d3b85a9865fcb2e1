"""The origin of a tokenizer, read from the records of a real study, and the card with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import gigatok
from gigatok.config import TokenizerArchitecture
from gigatok.hub.card import model_card
from gigatok.hub.origin import MeasuredScore, Origin, Use, read_origin
from orchestration import Study


def description() -> dict[str, object]:
    size = {"width": 16, "layers": 1, "heads": 1}
    architecture = TokenizerArchitecture.model_validate(
        {"encoder": size, "decoder": size, "semantic_weight": 0}
    )
    return {"architecture": architecture.model_dump(mode="json"), "image_size": 16}


def card(*scores: MeasuredScore) -> str:
    return model_card(description(), 8, 64, Origin(name="S-S", scores=scores), "me/mine")


def score(metric: str, value: float | None, protocol: str) -> MeasuredScore:
    return MeasuredScore(metric=metric, value=value, protocol=protocol, stage="a/b")


@pytest.mark.heavy
def test_records_tell_trial_data_code_and_scores(home: Study) -> None:
    stage = home.output("S-S", "train_tokenizer").parent
    origin = read_origin(stage)
    assert (origin.name, origin.key) == ("S-S", stage.name.rpartition("-")[2])
    assert origin.uses == (Use(sweep="home", scale="smoke", trial="S-S"),)
    assert origin.seed == 0
    assert origin.data == "128 train images of digits@16"
    assert origin.training["steps"] == 12
    provenance = json.loads((stage / "attempts" / "001.json").read_bytes())["provenance"]
    assert (origin.commit, origin.changed) == (provenance["git_sha"], provenance["git_dirty"])
    assert origin.packages == provenance["packages"]

    done = json.loads((home.output("S-S", "evaluate_reconstruction").parent / "DONE").read_bytes())
    scores = {score.metric: score for score in origin.scores}
    for name, value in done["metrics"].items():
        assert scores[name].value == value
    assert scores["psnr"].protocol == done["protocol"]["psnr"]
    assert scores["rsfid"].value is None
    assert "codebook_usage" in scores
    assert not scores.keys() & {"ar_val_loss", "gfid"}, "scores of a generator are its own"


@pytest.mark.heavy
def test_nothing_of_the_machine_is_published(home: Study, tmp_path: Path) -> None:
    stage = home.output("S-S", "train_tokenizer").parent
    gigatok.load(stage).save_pretrained(tmp_path / "saved")
    text = "".join(
        (tmp_path / "saved" / name).read_text() for name in ("config.json", "README.md")
    )
    attempt = json.loads((stage / "attempts" / "001.json").read_bytes())
    private = (str(tmp_path), str(stage.parents[2]), str(Path(__file__).parents[3]))
    assert [word for word in (*private, attempt["provenance"]["cpu"]) if word in text] == []


@pytest.mark.heavy
def test_the_origin_travels_with_the_folder(home: Study, tmp_path: Path) -> None:
    tokenizer = gigatok.load(home.output("S-S", "train_tokenizer"))
    tokenizer.save_pretrained(tmp_path / "saved")
    again = gigatok.load(tmp_path / "saved")
    assert again.origin == tokenizer.origin
    text = (tmp_path / "saved" / "README.md").read_text()
    for fact in (
        "home at scale smoke, trial S-S",
        "128 train images of digits@16",
        "| seed | 0 |",
    ):
        assert fact in text
    assert str(tokenizer.origin.commit) in text
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text() == text


@pytest.mark.heavy
def test_copied_weights_without_records_have_no_origin(home: Study, tmp_path: Path) -> None:
    shutil.copytree(home.output("S-S", "train_tokenizer"), tmp_path / "copy")
    tokenizer = gigatok.load(tmp_path / "copy")
    assert tokenizer.origin == Origin()
    tokenizer.save_pretrained(tmp_path / "saved")
    assert "| code | not known |" in (tmp_path / "saved" / "README.md").read_text()


def test_damaged_records_leave_the_rest(tmp_path: Path) -> None:
    stage = tmp_path / "runs" / "stages" / "train_tokenizer" / "S-S-01"
    stage.mkdir(parents=True)
    (stage / "spec.json").write_text(
        '{"stage": "train_tokenizer", "key": "01", "readable": "S-S"}'
    )
    (stage / "DONE").write_text("[")
    study = tmp_path / "runs" / "sweeps" / "mine"
    study.mkdir(parents=True)
    (study / "aa.json").write_text('"01" but no JSON')
    assert read_origin(stage) == Origin(name="S-S", stage="train_tokenizer", key="01")


def test_each_score_stands_with_its_protocol_and_missing_ones_are_said() -> None:
    text = card(
        score("psnr", 21.5, "64 images, uint8"),
        score("psnr", 22.5, "5 images, uint8"),
        score("rkid", 7.0, "inception@299"),
        score("rkid_se", 0.5, "not recorded"),
        score("rfid", None, "not measured: no images"),
    )
    assert "| PSNR (dB) ↑ | 21.50 | 64 images, uint8 |" in text
    assert "| PSNR (dB) ↑ | 22.50 | 5 images, uint8 |" in text
    assert "| rKID (x1000) ↓ | 7.0 ± 0.5 s.e. | inception@299 |" in text
    assert "Not measured: rFID (no images); SSIM; LPIPS; codebook usage." in text


def test_the_hub_reads_the_scores_of_the_card() -> None:
    text = card(
        score("psnr", 21.5, "64 images, uint8"),
        score("ssim", float("inf"), "64 images, uint8"),
        score("rfid", None, "not measured: no images"),
        score("effective_rank", 3.0, "64 images"),
    )
    data = ModelCard(text).data
    assert data.library_name == "gigatok"
    results = data.eval_results
    assert results is not None
    (result,) = results
    assert (result.metric_type, result.metric_value) == ("psnr", 21.5)
    assert result.dataset_name == "64 images, uint8"


def test_text_of_others_is_no_markup() -> None:
    use = Use(sweep="![x](http://evil.example/a|b)", scale="smoke", trial="<script>")
    text = model_card(description(), 8, 64, Origin(uses=(use,)), "FOLDER")
    assert "![x]" not in text
    assert "trial \\<script>" in text
    assert "a\\|b" in text
    assert "No score is recorded." in text


def test_weights_that_were_adopted_say_so() -> None:
    origin = Origin(adopted={"file": "vq.pt", "sha256": "ab"}, changed=True, commit="c0ffee")
    text = model_card(description(), 8, 64, origin, "FOLDER")
    assert "| adopted weights | file: vq.pt, sha256: ab |" in text
    assert "| seed |" not in text
    assert "c0ffee, with changes that were not committed" in text
