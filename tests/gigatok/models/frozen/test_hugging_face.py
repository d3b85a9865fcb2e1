"""Teachers `hf:REPO_OR_FOLDER` on tiny random networks that transformers itself saves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gigatok.config.kinds.teachers import TEACHERS, FoundTeacher, TeacherCost, look_at
from gigatok.contracts.teacher import broken_promises
from gigatok.models.frozen.hugging_face_files import content
from gigatok.models.frozen.teachers import Teacher, build_teacher
from tests.gigatok.hub.hub_server import hub_server

transformers = pytest.importorskip("transformers")

ROOT = Path(__file__).resolve().parents[4]
SIDE = 32
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
WIDE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
VIT = {**WIDE, "intermediate_size": 32, "image_size": SIDE, "patch_size": 8}
MAPS = {"hidden_sizes": [4, 8, 12, 16], "depths": [1, 1, 1, 1]}
TEXT = {**WIDE, "intermediate_size": 32, "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2}


def vit() -> Any:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**VIT))


def clip() -> Any:
    """Both encoders, as on the hub."""
    config = transformers.CLIPConfig(vision_config=VIT, text_config=TEXT)
    return transformers.CLIPModel(config)


def clip_vision() -> Any:
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VIT))


def dinov2_with_registers() -> Any:
    shape = {**WIDE, "image_size": 64, "patch_size": 8, "num_register_tokens": 4}
    config = transformers.Dinov2WithRegistersConfig(**shape)
    return transformers.Dinov2WithRegistersModel(config)


def convnext() -> Any:
    return transformers.ConvNextModel(transformers.ConvNextConfig(**MAPS))


def resnet() -> Any:
    return transformers.ResNetModel(transformers.ResNetConfig(embedding_size=4, **MAPS))


def swin() -> Any:
    shape = {"embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 2}
    config = transformers.SwinConfig(**shape, image_size=SIDE, patch_size=4)
    return transformers.SwinModel(config)


def save(model: Any, folder: Path, **preprocessor: Any) -> str:
    """Save a network with weights that are none of the fresh ones; returns the teacher's name."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.05, 0.2)
    model.eval().save_pretrained(folder)
    known = {"size": {"height": SIDE, "width": SIDE}, "image_mean": MEAN, "image_std": STD}
    (folder / "preprocessor_config.json").write_text(json.dumps(known | preprocessor))
    return f"hf:{folder}"


def images() -> torch.Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def pixels() -> torch.Tensor:
    mean, std = (torch.tensor(value)[:, None, None] for value in (MEAN, STD))
    return ((images() + 1) / 2 - mean) / std


def tokens_of(model: Any, before: int) -> torch.Tensor:
    tokens: torch.Tensor = model(pixels()).last_hidden_state[:, before:]
    return tokens


def rows_of(model: Any) -> torch.Tensor:
    """Cells of a map, row by row."""
    map_ = model(pixels()).last_hidden_state
    return torch.stack(
        [map_[:, :, y, x] for y in range(map_.shape[2]) for x in range(map_.shape[3])], 1
    )


BACKBONES: dict[Callable[[], Any], tuple[int, int, Callable[[Any], torch.Tensor]]] = {
    vit: (16, 4, lambda model: tokens_of(model.vit, 1)),
    clip: (16, 4, lambda model: tokens_of(model.vision_model, 1)),
    clip_vision: (16, 4, lambda model: tokens_of(model, 1)),
    # A class and four registers; made for 64 pixels, used at 32.
    dinov2_with_registers: (16, 4, lambda model: tokens_of(model, 5)),
    convnext: (16, 1, rows_of),
    resnet: (16, 1, rows_of),
    swin: (16, 4, lambda model: tokens_of(model, 0)),
}
"""Network -> channels, side of the grid, and its features by hand."""


@pytest.mark.parametrize("make", BACKBONES, ids=lambda make: make.__name__)
def test_features_are_those_of_transformers(make: Callable[[], Any], tmp_path: Path) -> None:
    model = make()
    name = save(model, tmp_path)
    dim, grid, by_hand = BACKBONES[make]
    teacher = build_teacher(name)
    assert (teacher.dim, teacher.grid, teacher.input_size) == (dim, grid, SIDE)
    with torch.no_grad():
        expected = by_hand(model)
    assert expected.shape == (2, grid**2, dim)
    torch.testing.assert_close(teacher.features(images()), expected, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save(vit(), folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy for each test, in another place."""
    return Path(shutil.copytree(saved, tmp_path / "vit"))


def test_a_folder_is_known_by_its_content(saved: Path, folder: Path) -> None:
    known = content(f"hf:{saved}")
    assert content(f"hf:{folder}") == known
    (folder / "README.md").write_text("not read")
    assert content(f"hf:{folder}") == known
    weights = load_file(folder / "model.safetensors")
    weights["vit.layernorm.bias"][0] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert content(f"hf:{folder}") != known


def test_the_statistics_of_pixels_are_content_too(saved: Path, folder: Path) -> None:
    change(folder / "preprocessor_config.json", image_mean=[0.0, 0.0, 0.0])
    assert content(f"hf:{folder}") != content(f"hf:{saved}")


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_repository_is_known_by_name_and_revision() -> None:
    assert content("hf:lab/net@v2") == "lab/net@v2"


def test_a_network_that_changed_since_it_was_planned_is_refused(folder: Path) -> None:
    name = f"hf:{folder}"
    planned = FoundTeacher(content=content(name), cost=TeacherCost(16, 4, SIDE))
    assert build_teacher(name, found=planned).dim == 16
    change(folder / "preprocessor_config.json", image_mean=[0.0, 0.0, 0.0])
    with pytest.raises(ValueError, match="has changed since the launch was planned"):
        build_teacher(name, found=planned)


def refusal(name: str) -> str:
    with pytest.raises(ValueError, match="hf:") as refused:
        build_teacher(name)
    return str(refused.value)


def test_networks_without_a_grid_are_refused(tmp_path: Path) -> None:
    text = {**TEXT, "max_position_embeddings": 8}
    bert = save(transformers.BertModel(transformers.BertConfig(**text)), tmp_path / "bert")
    assert "is a bert, which has no grid of features" in refusal(bert)
    # It takes images, but hides most of them, other ones each time.
    mae = save(transformers.ViTMAEModel(transformers.ViTMAEConfig(**VIT)), tmp_path / "mae")
    assert "is a vit_mae, which has no grid" in refusal(mae)
    assert "allowed are image classifiers and backbones of transformers" in refusal(mae)


def test_a_size_that_the_network_does_not_take_is_refused(folder: Path) -> None:
    change(folder / "preprocessor_config.json", size={"height": 40, "width": 40})
    assert "a vit, does not take images of 40 pixels" in refusal(f"hf:{folder}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vit.layernorm.bias": None}, "it lacks layernorm.bias"),
        ({"vit.layernorm.bias": torch.zeros(17)}, "of another shape are layernorm.bias"),
        (
            {"vit.layernorm.bias": torch.full((16,), torch.nan)},
            "layernorm.bias holds 16 values that are",
        ),
        (
            {"vit.encoder.layer.2.x": torch.zeros(1)},
            "it also has .*, so config.json is of another",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    folder: Path, changes: dict[str, torch.Tensor | None], message: str
) -> None:
    file = folder / "model.safetensors"
    weights = {**load_file(file), **changes}
    save_file({k: v for k, v in weights.items() if v is not None}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"is no vit: {message}"):
        build_teacher(f"hf:{folder}")


def test_files_that_are_missing_are_named(folder: Path) -> None:
    name = f"hf:{folder}"
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no weights; they are in files such as model\.safe"):
        content(name)
    (folder / "preprocessor_config.json").write_text('{"size": 32}')
    assert "image_mean of its preprocessor_config.json is None; it must be" in refusal(name)
    (folder / "preprocessor_config.json").unlink()
    assert "has no preprocessor_config.json; it says how pixels are normal" in refusal(name)
    assert "has no config.json; name a folder that" in refusal(f"hf:{folder}/nowhere")


def test_a_pickle_of_weights_is_read_but_never_run(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    expected = build_teacher(f"hf:{folder}").features(images())
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert torch.equal(build_teacher(f"hf:{folder}").features(images()), expected)
    torch.save({**weights, "vit.layernorm.bias": Path("x")}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"(?s)cannot load vit .* Weights only load failed"):
        build_teacher(f"hf:{folder}")


def test_a_repository_that_is_not_here_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"hf:lab/net is not on this machine") as refused:
        look_at("hf:lab/net")
    assert "python -m gigatok assets fetch SWEEP" in str(refused.value)


USE = """
from gigatok.config.kinds.teachers import look_at
from gigatok.data.assets import fetch, is_here
from gigatok.models.frozen.teachers import build_teacher

name = "hf:lab/net@v1"
found = look_at(name)
print(found.content, found.cost.grid, is_here(name))
fetch(name)
print(is_here(name), build_teacher(name, found=found).dim)
"""


@pytest.mark.slow
def test_a_repository_is_planned_from_its_descriptions_and_then_fetched(
    folder: Path, tmp_path: Path
) -> None:
    where = {"HF_HOME": str(tmp_path / "hub"), "GIGATOK_CACHE": str(tmp_path / "cache")}
    with hub_server() as server:
        files = {file.name: file.read_bytes() for file in folder.iterdir()}
        server.repositories["lab/net"] = files
        said = python(USE, **where, HF_ENDPOINT=server.endpoint)
    assert said.splitlines()[-2:] == ["lab/net@v1 4 False", "True 16"]
    assert "hf:lab/net@v1 (size unknown)" in said
    # What was fetched is enough where there is no network.
    said = python(USE, **where, HF_HUB_OFFLINE="1")
    assert said.splitlines()[-2:] == ["lab/net@v1 4 True", "True 16"]


def python(code: str, **variables: str) -> str:
    environment = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


@pytest.mark.heavy
def test_costs_are_those_of_the_loaded_network(folder: Path) -> None:
    found = look_at(f"hf:{folder}")
    assert found is not None
    teacher = build_teacher(f"hf:{folder}")
    assert isinstance(teacher, Teacher)
    # Only this kernel's products are counted on a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        teacher.features(images())
    assert found.cost.flops == counter.get_total_flops() // 2
    assert found.cost.parameters == sum(p.numel() for p in teacher.parameters())
    assert (found.cost.dim, found.cost.grid, found.cost.side) == (16, 4, SIDE)


@pytest.mark.heavy
def test_a_network_keeps_the_contract(folder: Path) -> None:
    assert broken_promises(replace(TEACHERS["hf"], example=f"hf:{folder}")) == []
