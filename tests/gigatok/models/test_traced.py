"""Traced costs are those of the layouts, are measured once, and say what cannot be traced."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gigatok import plugins
from gigatok.config import TokenizerArchitecture
from gigatok.config.kinds.quantizers import QUANTIZERS
from gigatok.costs.memory import tokenizer_training_memory
from gigatok.models import traced as front
from gigatok.models.generator.layout import generator_layout
from gigatok.models.layers import flops, parameters
from gigatok.models.quantizers.layout import quantizer_layout, traced_layout
from gigatok.models.tokenizer.layout import tokenizer_layout
from gigatok.models.traced import Input, Subject, Traced, TraceError, traced
from gigatok.plugins import load
from tests.gigatok.counted_flops import GENERATORS, SHAPES, SIDE, architecture, training

pytestmark = pytest.mark.heavy  # torch is started once for all of them

NETWORKS = """
import os

import torch
from torch import nn


class Halves(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width // 2)

    def forward(self, x):
        return {"half": self.linear(x)}


class Reading(Halves):
    def forward(self, x):
        print("what it prints is no answer")
        return self.linear(x) if x.sum().item() < 1e9 else x


class Wrong(Halves):
    def forward(self, x):
        return self.linear(self.linear(x))  # half as many channels as it takes


def crashing():
    os._exit(7)


def attending(width: int):
    return nn.TransformerEncoderLayer(width, 2, batch_first=True)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and a process that has traced nothing yet."""
    monkeypatch.setenv("GIGATOK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(front, "_known", {})
    monkeypatch.setattr(plugins, "LOADED", {})
    return tmp_path / "cache" / "traced"


@pytest.fixture
def networks(tmp_path: Path) -> str:
    """Module of a plug-in with the networks above."""
    (tmp_path / "networks.py").write_text(NETWORKS)
    return load(["./networks.py"], tmp_path)[0].package


def of_halves(build: str, width: int = 8) -> Traced:
    return traced(Subject(build, (Input((4, width), gradient=True),), (width,), training=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_quantizers_cost_what_their_layouts_say(shape: str) -> None:
    config = architecture(shape)
    tokens = config.tokens_per_image(SIDE)
    known, found = quantizer_layout(config, tokens), traced_layout(config, tokens)
    assert parameters(found.codebook) == parameters(known.codebook)
    assert flops(found.codebook) == flops(known.codebook)
    assert flops(found.losses) == flops(known.losses)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_memory_of_a_step_is_as_with_a_layout(name: str, without_layout: str) -> None:
    kind = QUANTIZERS[name]
    shape = next(s for s in SHAPES if architecture(s).quantizer.name == name)
    known = tokenizer_training_memory(training(shape), SIDE)
    QUANTIZERS[name] = replace(kind, layout=None)
    # As near as layouts are to torch's allocator.
    assert tokenizer_training_memory(training(shape), SIDE) == pytest.approx(known, rel=0.1)


@pytest.fixture
def without_layout(name: str) -> Iterator[str]:
    """Put a quantizer back into the registry after a test has replaced it."""
    sound = QUANTIZERS[name]
    yield name
    QUANTIZERS[name] = sound


@pytest.mark.parametrize("shape", ["1d", "1d-patched", "2d-vit"])
def test_a_whole_tokenizer(shape: str) -> None:
    config = architecture(shape)
    layers = tokenizer_layout(config, SIDE, 12).total
    found = traced(
        Subject(
            "gigatok.models.tokenizer.base:build_tokenizer",
            (Input((3, SIDE, SIDE)),),
            args=(config, SIDE),
            kwargs={"teacher_dim": 12, "teacher_grid": 4},
            training=True,
        )
    )
    assert (found.parameters, found.flops) == (parameters(layers), flops(layers))
    assert found.kept == pytest.approx(sum(layer.kept for layer in layers), rel=0.1)
    assert found.outputs[0] == (3, SIDE, SIDE)
    assert found.layer().flops == found.flops


def test_a_generator_with_classes_and_codes() -> None:
    config = GENERATORS["plain"].model_copy(update={"dropout": 0.0})
    layers = generator_layout(config, 64, 10, 16)
    found = traced(
        Subject(
            "gigatok.models.generator.generator:LlamaGen",
            (Input((16,), "int64"), Input((), "int64")),
            args=(config, 64, 10, 16),
            training=True,
        )
    )
    assert (found.parameters, found.flops) == (parameters(layers), flops(layers))
    assert found.backward == 2 * found.flops
    assert found.kept == pytest.approx(sum(layer.kept for layer in layers), rel=0.1)


def test_counts_by_hand(networks: str) -> None:
    found = of_halves(f"{networks}:Halves")
    assert found == Traced(
        parameters=8 * 4 + 4,
        flops=2 * 4 * 8 * 4,
        backward=2 * 2 * 4 * 8 * 4,
        kept=4 * 4,  # the output; the input is another's
        largest=4 * 8,  # the gradient of the input
        outputs=((4, 4),),
    )
    # The gradient of the weights alone, and outside training none.
    subject = Subject(f"{networks}:Halves", (Input((4, 8)),), (8,))
    assert traced(replace(subject, training=True)).backward == found.flops
    assert (traced(subject).backward, traced(subject).kept) == (0, 0)


def test_attention_keeps_no_scores(networks: str) -> None:
    """Scores grow with the square of the tokens, and no fused kernel keeps them."""

    def kept(tokens: int) -> int:
        shape = (Input((tokens, 8), gradient=True),)
        return traced(Subject(f"{networks}:attending", shape, (8,), training=True)).kept

    assert kept(64) == 4 * kept(16) == 8 * kept(8)


def test_a_result_is_kept_for_other_processes(
    networks: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = of_halves(f"{networks}:Halves")
    assert len(list(cache.glob("*.json"))) == 1
    monkeypatch.setattr(front, "_known", {})
    monkeypatch.setattr(front, "_processes", {})
    monkeypatch.setattr(sys, "executable", "/no/python")
    assert of_halves(f"{networks}:Halves") == found
    with pytest.raises(OSError, match="no/python"):
        of_halves(f"{networks}:Halves", width=16)


def test_damage_in_the_cache_is_repaired(
    networks: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = of_halves(f"{networks}:Halves")
    (file,) = cache.glob("*.json")
    file.write_text(file.read_text().replace('"flops": 256', '"flops": 255'))
    monkeypatch.setattr(front, "_known", {})
    assert of_halves(f"{networks}:Halves") == found


def test_an_edited_plugin_is_traced_again(networks: str, tmp_path: Path) -> None:
    before = of_halves(f"{networks}:Halves")
    (tmp_path / "networks.py").write_text(
        NETWORKS.replace("width // 2)", "width // 2, bias=False)")
    )
    (edited,) = load(["./networks.py"], tmp_path)
    assert of_halves(f"{edited.package}:Halves").parameters == before.parameters - 4


def test_only_what_costs_tells_configs_apart() -> None:
    config, tokens = training("1d-entropy"), 16
    traced_layout(config, tokens)
    known = len(front._known)
    traced_layout(config.model_copy(update={"lr": 0.5, "entropy_weight": 0.7}), tokens)
    assert len(front._known) == known
    traced_layout(config.model_copy(update={"codebook_size": 32}), tokens)
    assert len(front._known) == known + 2  # the search, and a step


def test_values_that_are_read_are_measured_on_the_cpu(
    networks: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = of_halves(f"{networks}:Reading")
    assert found.flops == of_halves(f"{networks}:Halves").flops
    line = NETWORKS[: NETWORKS.index("x.sum()")].count("\n") + 1
    assert f"networks.py, line {line})" in caplog.text
    assert "give it a layout" in caplog.text


def test_a_mistake_is_named_with_its_line(networks: str) -> None:
    line = NETWORKS[: NETWORKS.index("half as many")].count("\n") + 1
    with pytest.raises(TraceError, match="mat1 and mat2") as caught:
        of_halves(f"{networks}:Wrong")
    assert str(caught.value).startswith("Wrong of plug-in ./networks.py: RuntimeError: ")
    assert str(caught.value).endswith(f"networks.py, line {line})")


def test_a_crash_is_named_and_the_next_is_traced(networks: str) -> None:
    with pytest.raises(
        TraceError, match=r"crashing of .* could not be traced: .* ended with code 7"
    ):
        traced(Subject(f"{networks}:crashing", ()))
    assert of_halves(f"{networks}:Halves").parameters == 36


def test_a_config_survives_the_way(networks: str) -> None:
    config = TokenizerArchitecture.model_validate(architecture("1d-fsq").model_dump())
    assert traced_layout(config, 8) == traced_layout(architecture("1d-fsq"), 8)
