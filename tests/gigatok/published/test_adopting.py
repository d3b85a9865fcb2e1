"""Files of weights as stages: adopted tokenizers and generators, and what is refused."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gigatok.config import (
    AdoptConfig,
    AdoptedFile,
    CNNConfig,
    GeneratorArchitecture,
    TokenizerArchitecture,
    TransformerSize,
)
from gigatok.files.hashes import sha256_of
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.published.adopting import read_planned
from gigatok.published.catalogue import PUBLISHED, hidden_differences
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.tracker import NullTracker
from gigatok.stages.adopt_generator import run as adopt_generator
from gigatok.stages.adopt_generator.spec import AdoptGeneratorConfig
from gigatok.stages.adopt_tokenizer import run as adopt_tokenizer
from gigatok.stages.adopt_tokenizer.spec import AdoptTokenizerConfig
from gigatok.training.saved import CODES_FILE, load_generator, load_tokenizer, save_tokenizer

SIZE = TransformerSize(name="S", width=32, layers=2, heads=2)
CNN = CNNConfig(channels=8, multipliers=(1, 2), resblocks=1, mid_blocks=0, z_channels=16, groups=4)
ARCHITECTURE = TokenizerArchitecture(
    encoder=SIZE,
    decoder=SIZE,
    cnn=CNN,
    num_latent_tokens=4,
    codebook_size=32,
    usage_window=64,
    semantic_layer=1,
)
SIDE, TEACHER_DIM = 8, 5


def original(architecture: TokenizerArchitecture = ARCHITECTURE) -> GigaTok:
    torch.manual_seed(0)
    return GigaTok(architecture, SIDE, teacher_dim=TEACHER_DIM).eval()


def reference_file(path: Path, state: dict[str, torch.Tensor]) -> Path:
    """As the reference's trainer of tokenizers writes them."""
    content = {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
        "discriminator": {"main.0.weight": torch.zeros(2)},
        "steps": 1234,
        "args": argparse.Namespace(lr=1e-4, note="hello"),
    }
    torch.save(content, path)
    return path


def adopted(path: Path) -> AdoptedFile:
    return AdoptedFile(path=str(path), sha256=sha256_of(path))


def adopt(path: Path, folder: Path, **changes: Any) -> Scores:
    config = AdoptTokenizerConfig(
        architecture=ARCHITECTURE.model_copy(update=changes),
        image_size=SIDE,
        file=adopted(path),
    )
    return adopt_tokenizer.run(config, {}, folder, NullTracker(), Runtime(folder))


@torch.inference_mode()
def test_an_adopted_tokenizer_is_the_one_in_the_file(tmp_path: Path) -> None:
    tokenizer = original()
    file = reference_file(tmp_path / "tok.pt", tokenizer.state_dict())
    scores = adopt(file, tmp_path / "out")
    file.unlink()
    loaded = load_tokenizer(tmp_path / "out", "cpu")
    image = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    assert torch.equal(loaded.encode(image), tokenizer.encode(image))
    codes = tokenizer.encode(image)
    torch.testing.assert_close(loaded.decode(codes), tokenizer.decode(codes))
    assert scores.metrics["params_total"] == sum(p.numel() for p in tokenizer.parameters())
    assert scores.metrics["params_head"] > 0
    assert scores.protocol["params_total"].endswith("adopted")


def test_where_it_comes_from_is_recorded(tmp_path: Path) -> None:
    state = {**original().state_dict(), "loss.logvar": torch.zeros(7)}
    file = reference_file(tmp_path / "tok.pt", state)
    digest = sha256_of(file)
    facts = adopt(file, tmp_path / "out").origin
    assert facts == {
        "file": "tok.pt",
        "sha256": digest,
        "layout": "model",
        "steps": "1234",
        "ignored": "loss.logvar (7,)",
        "semantic_head": "in the file",
    }
    record = json.loads((tmp_path / "out" / "origin.json").read_text())
    assert record["sha256"] == digest
    assert record["report"]["args"] == {"lr": 1e-4, "note": "hello"}
    assert record["report"]["misfits"]["ignored"] == {"loss.logvar": [7]}
    assert "loss.logvar" not in load_file(tmp_path / "out" / "model.safetensors")


def test_a_file_without_the_head(tmp_path: Path) -> None:
    state = {k: v for k, v in original().state_dict().items() if "distill_mlp" not in k}
    scores = adopt(reference_file(tmp_path / "tok.pt", state), tmp_path / "out")
    assert scores.metrics["params_head"] == 0
    assert scores.origin["semantic_head"] == "not in the file"
    assert load_tokenizer(tmp_path / "out", "cpu").to_grid.distill_mlp is None


def test_weights_of_another_tokenizer_are_listed(tmp_path: Path) -> None:
    state = original().state_dict()
    del state["quant_conv.bias"]
    file = reference_file(tmp_path / "tok.pt", {**state, "extra": torch.zeros(1)})
    with pytest.raises(ValueError, match="are not those of S-S") as caught:
        adopt(file, tmp_path / "out", codebook_size=64)
    message = str(caught.value)
    assert "missing: quant_conv.bias (8,)" in message
    assert "quantize.embedding.weight is (32, 8), expected (64, 8)" in message
    assert "unexpected: extra (1,)" in message
    assert not (tmp_path / "out").exists()


def test_a_quantizer_that_the_weights_do_not_show_is_told_by_the_description(
    tmp_path: Path,
) -> None:
    """Neither has parameters: every weight would fit."""
    lookup_free = {"name": "lfq", "bits": 8}
    spherical = {"name": "bsq", "bits": 8}
    made, wanted = (
        TokenizerArchitecture.model_validate({**ARCHITECTURE.model_dump(), "quantizer": kind})
        for kind in (lookup_free, spherical)
    )
    save_tokenizer(tmp_path, original(made))
    file = adopted(tmp_path / "model.safetensors")
    read_planned(file, made)
    with pytest.raises(ValueError, match=r"quantizer\.name is bsq, .*model\.json says lfq"):
        read_planned(file, wanted)


def test_an_adopted_quantizer_without_weights_works(tmp_path: Path) -> None:
    kind = {"name": "fsq", "levels": [5, 5, 5]}
    made = TokenizerArchitecture.model_validate({**ARCHITECTURE.model_dump(), "quantizer": kind})
    tokenizer = original(made).eval()
    file = reference_file(tmp_path / "tok.pt", tokenizer.state_dict())
    adopt(file, tmp_path / "out", quantizer=made.quantizer)
    loaded = load_tokenizer(tmp_path / "out", "cpu")
    image = torch.rand(2, 3, SIDE, SIDE) * 2 - 1
    assert torch.equal(loaded.encode(image), tokenizer.encode(image))


def test_a_deeper_decoder_and_a_broken_codebook_are_refused(tmp_path: Path) -> None:
    deeper = ARCHITECTURE.model_copy(update={"decoder": SIZE.model_copy(update={"layers": 3})})
    file = reference_file(tmp_path / "deep.pt", original(deeper).state_dict())
    with pytest.raises(
        ValueError,
        match=r"(?s)deep\.pt: .*unexpected: s1to2decoder\.transformer\.2.*the sizes of",
    ):
        adopt(file, tmp_path / "out")
    state = original().state_dict()
    state["quantize.embedding.weight"][3, 1] = torch.nan
    file = reference_file(tmp_path / "broken.pt", state)
    with pytest.raises(
        ValueError, match=r"(?s)broken\.pt: .*quantize\.embedding\.weight holds 1 values that are"
    ):
        adopt(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_head_contradicts_a_trial_without_regularisation(tmp_path: Path) -> None:
    file = reference_file(tmp_path / "tok.pt", original().state_dict())
    with pytest.raises(ValueError, match=r"the trial has tokenizer\.semantic_weight 0"):
        adopt(file, tmp_path / "out", semantic_weight=0.0)


def test_a_file_that_changed_after_planning_is_refused(tmp_path: Path) -> None:
    file = reference_file(tmp_path / "tok.pt", original().state_dict())
    config = AdoptTokenizerConfig(architecture=ARCHITECTURE, image_size=SIDE, file=adopted(file))
    reference_file(file, {k: v + 1 for k, v in original().state_dict().items()})
    runtime = Runtime(tmp_path)
    with pytest.raises(ValueError, match=r"tok\.pt has changed since it was planned"):
        adopt_tokenizer.run(config, {}, tmp_path / "out", NullTracker(), runtime)
    file.unlink()
    with pytest.raises(ValueError, match="is no file any more"):
        adopt_tokenizer.run(config, {}, tmp_path / "out", NullTracker(), runtime)


def test_our_own_weights_bring_their_description(tmp_path: Path) -> None:
    """The number of heads does not show in weights, but in `model.json` beside them."""
    tokenizer = original()
    save_tokenizer(tmp_path / "ours", tokenizer)
    file = tmp_path / "ours" / "model.safetensors"
    adopt(file, tmp_path / "out")
    adopt(file, tmp_path / "out", rotation_trick=False)  # of training alone
    other = SIZE.model_copy(update={"heads": 4})
    with pytest.raises(ValueError, match=r"encoder\.heads is 4, .*model\.json says 2"):
        adopt(file, tmp_path / "out", encoder=other)
    for broken in ("", "[]", "{}"):
        file.with_name("model.json").write_text(broken)
        with pytest.raises(ValueError, match=r"model\.json describes no model"):
            adopt(file, tmp_path / "out")


def test_what_published_weights_do_not_show_is_compared() -> None:
    for model in PUBLISHED.values():
        assert hidden_differences(model.architecture) == []
    published = PUBLISHED["S-B"].architecture
    assert isinstance(published, TokenizerArchitecture)
    heads = published.decoder.model_copy(update={"heads": 6})
    wrong = published.model_copy(update={"decoder": heads})
    (difference,) = hidden_differences(wrong)
    assert difference == "decoder.heads is 6, that of the published S-B is 12"
    rope = PUBLISHED["GPT-B-2d"].architecture.model_copy(update={"reference_rope_quirk": False})
    assert len(hidden_differences(rope)) == 1
    assert hidden_differences(ARCHITECTURE) == []


# ── generators ─────────────────────────────────────────────────────────────────────────────────

GENERATOR = GeneratorArchitecture(size=SIZE, ffn_multiple_of=32)


@pytest.fixture
def codes(tmp_path: Path) -> Path:
    random = torch.Generator().manual_seed(0)
    tensors = {
        "train": torch.randint(32, (2, 40, 4), generator=random, dtype=torch.int16),
        "train_labels": torch.randint(3, (40,), generator=random),
        "val": torch.randint(32, (9, 4), generator=random, dtype=torch.int16),
        "val_labels": torch.randint(3, (9,), generator=random),
        "sizes": torch.tensor([32, 3]),
    }
    save_file(tensors, tmp_path / CODES_FILE)
    return tmp_path


def adopt_ar(path: Path, codes: Path, architecture: GeneratorArchitecture) -> Scores:
    config = AdoptGeneratorConfig(architecture=architecture, file=adopted(path))
    inputs, runtime = {"extract_codes": codes}, Runtime(codes)
    return adopt_generator.run(config, inputs, codes / "out", NullTracker(), runtime)


def test_an_adopted_generator_is_measured_on_the_codes(codes: Path) -> None:
    torch.manual_seed(0)
    generator = LlamaGen(GENERATOR, 32, 3, 4).eval()
    file = reference_file(codes / "gpt.pt", generator.state_dict())
    scores = adopt_ar(file, codes, GENERATOR)
    loaded = load_generator(codes / "out", "cpu")
    for name, value in generator.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    # Untrained: close to uniform over 32 codes.
    assert scores.metrics["ar_val_loss"] == pytest.approx(math.log(32), abs=0.3)
    assert scores.origin["file"] == "gpt.pt"


def test_a_generator_of_another_tokenizer_is_refused(codes: Path) -> None:
    file = reference_file(codes / "gpt.pt", LlamaGen(GENERATOR, 64, 3, 4).state_dict())
    with pytest.raises(ValueError, match=r"output\.weight is \(64, 32\), expected \(32, 32\)"):
        adopt_ar(file, codes, GENERATOR)


# ── the config ─────────────────────────────────────────────────────────────────────────────────


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    file = tmp_path / "gpt.pt"
    file.touch()
    with pytest.raises(ValueError, match=r"give adopt\.tokenizer as well"):
        AdoptConfig(generator=str(file))
    with pytest.raises(ValueError, match=r"tokenizer none\.pt is no file"):
        AdoptConfig(tokenizer="none.pt")
