"""Published models by name, and loading their checkpoints in every layout."""

from __future__ import annotations

import argparse
import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from gigatok.config import GeneratorArchitecture, TransformerSize
from gigatok.files.stored_weights import read_weights
from gigatok.files.weight_files import unreadable
from gigatok.models.generator.layout import generator_parameters
from gigatok.models.tokenizer.layout import tokenizer_parameters
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.published.__main__ import app
from gigatok.published.catalogue import (
    PUBLISHED,
    Published,
    build,
    hidden_differences,
    layouts_of,
    load,
    load_with_report,
)

pytestmark = pytest.mark.heavy

# sha256 of the sorted "name shape" lines of the published state dicts.
KEYS = {
    "S-S": "3a0623c4017157009564df7212fb534294a168337d662b5c37ae7b6b836c9a56",
    "S-B": "fe434b532b70ae84a95a162e6556d42d5befa2f7f4aef64dc4fbec652b50843e",
    "B-L": "ee8819ddaf9accac803f6ba5aecd935ec86734b419dd25671dc2a869004f4a62",
    "B-L-dino": "ee8819ddaf9accac803f6ba5aecd935ec86734b419dd25671dc2a869004f4a62",
    "B-L-entropy": "ee8819ddaf9accac803f6ba5aecd935ec86734b419dd25671dc2a869004f4a62",
    "XL-XXL": "92cbbefa4e6503a836074a7d70948dc69b17227775c26625857b34276bf04b68",
    "S-S-2d": "eb393f97ae9fe1430cabbb2e9c604f4cae323c31e3695d73f96409e919d99108",
    "S-B-2d": "2ad560aadcf32d23f1263fa34878c1c5279ddbdf4b2d4ed80374820c001e8269",
    "B-L-2d": "7c45828ec5b21d3eb85a0b5828444c609df877ea4356a2d2f98d5e3b752db736",
    "GPT-B": "bd0a50147ef2b96488c07ef788420155e2bf722a055bebdff32fa22652327b59",
    "GPT-L": "342d58c9bf596c75b6df519e757b602ab3a3bc1c1f41d2b95026066344e5bc50",
    "GPT-XL": "27451a6944336068fb9135673d6138859e0137fe4dfab8b47ba2988c61f241ec",
    "GPT-XXL": "7ed229e5c91cfcde77a17c6a879adab12c625ac74b87a9f64b3f316febff72e6",
    "GPT-B-2d": "12e5d11bd5cc18db8d1783ab8e6a4c4e2ebe08787d79cef0e1ede629afe05b0c",
    "GPT-L-2d": "2ae6d209f51886cdf26f3fb8bd186cb11ee903731172ffc1ed9b0b3c21ef6d96",
    "GPT-XL-2d": "1aea0fc0dfe17e98117f152a32f69293595bbc500c6967ee2e30c790372a8a26",
    "GPT-XXL-2d": "a8c2eed26f5c444e06eb01729003ec0ed191e931fb2356719d6e2613406682d8",
}


def build_on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return build(name)


def test_every_published_count_in_seconds_without_memory() -> None:
    started = time.process_time()
    for name, model in PUBLISHED.items():
        parameters = list(build_on_meta(name).parameters())
        assert all(p.is_meta for p in parameters)
        count = sum(p.numel() for p in parameters)
        if isinstance(model.architecture, GeneratorArchitecture):
            closed = generator_parameters(model.architecture, 16384, 1000, 256)
        else:
            closed = tokenizer_parameters(model.architecture, 256).total
        assert count == closed == model.parameters, name
    assert time.process_time() - started < 30


@pytest.mark.parametrize("name", KEYS)
def test_names_and_shapes(name: str) -> None:
    state = build_on_meta(name).state_dict()
    lines = "\n".join(sorted(f"{key} {tuple(value.shape)}" for key, value in state.items()))
    assert hashlib.sha256(lines.encode()).hexdigest() == KEYS[name]


def test_every_model_but_the_unreleased_one_has_pinned_names() -> None:
    assert PUBLISHED.keys() - KEYS.keys() == {"GPT-XXXL"}


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no published model 'S-L'; there are S-S, S-B"):
        build("S-L")


# ── loading ────────────────────────────────────────────────────────────────────────────────────

ARGS = argparse.Namespace(vq_model="VQ-16", lr=1e-4, no_wandb=True, betas=(0.9, 0.95))


@pytest.fixture(scope="module")
def original() -> GigaTok:
    torch.manual_seed(0)
    model = build("S-S")
    assert isinstance(model, GigaTok)
    return model.eval()


@pytest.fixture(scope="module")
def image_BCHW() -> torch.Tensor:
    return torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1


def without_head(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if "distill_mlp" not in key}


@pytest.mark.slow
@torch.inference_mode()
def test_round_trip_through_the_reference_layout(
    original: GigaTok, image_BCHW: torch.Tensor, tmp_path: Path
) -> None:
    content = {
        "model": original.state_dict(),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]},
        "discriminator": {"main.0.weight": torch.zeros(64, 3, 4, 4)},
        "steps": 1_000_000,
        "args": ARGS,
    }
    torch.save(content, tmp_path / "S-S.pt")
    with pytest.raises(Exception, match="Namespace"):
        torch.load(tmp_path / "S-S.pt", weights_only=True)
    loaded, report = load_with_report("S-S", tmp_path / "S-S.pt")
    assert isinstance(loaded, GigaTok)
    assert not loaded.training
    weights = loaded.state_dict()
    assert all(torch.equal(weights[name], w) for name, w in original.state_dict().items())
    expected, actual = original(image_BCHW), loaded(image_BCHW)
    assert torch.equal(actual.codes_BS, expected.codes_BS)
    # Tiled convolutions round otherwise where memory lies otherwise.
    torch.testing.assert_close(
        actual.reconstruction_BCHW, expected.reconstruction_BCHW, atol=5e-5, rtol=0
    )
    torch.testing.assert_close(actual.semantic_BNS, expected.semantic_BNS)
    assert (report.layout, report.steps, report.has_head) == ("model", 1_000_000, True)
    assert report.args == vars(ARGS)
    assert report.parameters == 136_073_227
    assert report.complete
    assert report.dtypes == {"float32": 538}
    (tmp_path / "S-S.pt").unlink()  # 0.5 GB
    assert loaded.quantize.embedding.weight.isfinite().all(), "the file is not needed any more"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Weights of a model that is listed for the test, so that layouts are tested in no time."""
    size = TransformerSize(width=32, layers=2, heads=2)
    model = Published(GeneratorArchitecture(size=size), 0, "a test")
    monkeypatch.setitem(PUBLISHED, "tiny", model)
    torch.manual_seed(0)
    return build("tiny").state_dict()


Wrap = Callable[[dict[str, torch.Tensor]], dict[str, Any]]
LAYOUTS: dict[str, tuple[str, Wrap]] = {
    # The authors prefer the average of a tokenizer, and of a generator what was trained.
    "model before ema": ("model", lambda state: {"model": state, "ema": {"x": torch.zeros(1)}}),
    "ema alone": ("ema", lambda state: {"ema": state}),
    "ema that is off": ("model", lambda state: {"model": state, "ema": None}),
    "ema that is empty": ("model", lambda state: {"model": state, "ema": {}}),
    "model": ("model", lambda state: {"model": state, "steps": 3}),
    "module": ("module", lambda state: {"module": state}),
    "state_dict": ("state_dict", lambda state: {"state_dict": state}),
    "bare": ("bare", lambda state: state),
    "DDP": ("model", lambda state: {"model": {f"module.{k}": v for k, v in state.items()}}),
    "compiled DDP": (
        "bare",
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
    ),
    "compiled layers": (
        "bare",
        lambda state: {
            key.replace("layers.0.", "layers.0._orig_mod."): value for key, value in state.items()
        },
    ),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_layouts(case: str, tiny: dict[str, torch.Tensor], tmp_path: Path) -> None:
    layout, wrap = LAYOUTS[case]
    torch.save(wrap(tiny), tmp_path / "file.pt")
    for source in (tmp_path / "file.pt", str(tmp_path / "file.pt"), wrap(tiny)):
        model, report = load_with_report("tiny", source)
        assert report.layout == layout
        assert report.complete
        for key, value in model.state_dict().items():
            assert torch.equal(value, tiny[key]), key


def test_of_a_tokenizer_the_average_is_taken() -> None:
    tensors = {"x": torch.zeros(1)}
    content = {"model": {"x": torch.ones(1)}, "ema": tensors, "state_dict": tensors}
    assert read_weights(content, layouts_of(PUBLISHED["S-S"].architecture)).layout == "ema"
    assert read_weights(content, layouts_of(PUBLISHED["GPT-B"].architecture)).layout == "model"


def test_layers_with_the_same_weights_are_told_apart_by_name() -> None:
    published = PUBLISHED["S-S-2d"].architecture
    other = published.model_copy(update={"transformer_layer": "double_attention"})
    assert hidden_differences(published) == []
    assert hidden_differences(other) == [
        "transformer_layer is double_attention, that of the published S-S-2d is qformer"
    ]
    shapes_tell = published.model_copy(update={"transformer_layer": "vit"})
    assert hidden_differences(shapes_tell) == []


def test_safetensors_and_old_files_of_torch(tiny: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(tiny, tmp_path / "file.safetensors")
    torch.save({"model": tiny}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for file in tmp_path.iterdir():
        assert torch.equal(load("tiny", file).output.weight, tiny["output.weight"])


def test_half_precision_is_widened(tiny: dict[str, torch.Tensor]) -> None:
    half = {key: value.half() for key, value in tiny.items()}
    model, report = load_with_report("tiny", half)
    assert report.dtypes == {"float16": len(tiny)}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.norm.weight, half["norm.weight"].float())


def test_a_loaded_model_is_a_copy(tiny: dict[str, torch.Tensor]) -> None:
    model = load("tiny", tiny)
    with torch.no_grad():
        model.norm.weight += 1
    assert not torch.equal(model.norm.weight, tiny["norm.weight"])


def test_without_the_head_and_the_usage_window(original: GigaTok) -> None:
    state = without_head(original.state_dict())
    del state["quantize.codebook_used"]
    model, report = load_with_report("S-S", {"ema": state})
    assert not report.has_head
    assert report.complete
    assert report.parameters == 136_073_227 - 6_820_608
    assert model.s1to2decoder.distill_mlp is None
    assert model.quantize.usage() == 0
    assert torch.equal(model.quant_conv.weight, original.quant_conv.weight)


def test_what_does_not_fit_is_listed_with_shapes(tiny: dict[str, torch.Tensor]) -> None:
    wrong = dict(tiny)
    del wrong["norm.weight"]
    wrong["output.weight"] = torch.zeros(5, 32)
    wrong["extra.bias"] = torch.zeros(7)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load("tiny", {"model": wrong})
    assert str(caught.value).splitlines() == [
        "these weights (layout model) are not those of tiny:",
        "  missing: norm.weight (32,)",
        "  output.weight is (5, 32), expected (16384, 32)",
        "  unexpected: extra.bias (7,)",
    ]


def test_what_is_of_training_alone_is_ignored_with_a_warning(
    tiny: dict[str, torch.Tensor],
) -> None:
    with pytest.warns(UserWarning, match=r"ignored: loss\.logvar \(7,\)"):
        model = load("tiny", {**tiny, "loss.logvar": torch.zeros(7)})
    assert "loss.logvar" not in model.state_dict()


def test_a_deeper_model_is_not_taken_for_the_shallower_one(tiny: dict[str, torch.Tensor]) -> None:
    deeper = {key.replace("layers.1.", "layers.2."): value for key, value in tiny.items()}
    with pytest.raises(ValueError, match=r"unexpected: layers\.2\.attention\.wqkv\.weight"):
        load("tiny", deeper | tiny)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: w.index_fill(0, torch.tensor(0), torch.nan), "holds 1 values that are not fin"),
        (lambda w: w.double() * 1e300, "holds 32 values that are not finite"),
        (lambda w: w.to(torch.int8), "is int8 .*expected floating-point numbers"),
        (lambda w: w.to_sparse(), "is float32 .*sparse_coo.*expected floating-point numbers"),
    ],
)
def test_weights_that_are_none_are_named(
    spoil: Callable[[torch.Tensor], torch.Tensor], message: str, tiny: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(ValueError, match=rf"norm\.weight {message}"):
        load("tiny", {**tiny, "norm.weight": spoil(tiny["norm.weight"])})


def test_numbers_of_numpy_are_read(tiny: dict[str, torch.Tensor], tmp_path: Path) -> None:
    args = argparse.Namespace(lr=np.float32(0.5), betas=np.array([0.9, 0.95]))
    beside = {"args": args, "rng": np.random.RandomState(0).get_state()}
    for steps in (np.int64(7), torch.tensor(7), 7):
        torch.save({"model": tiny, "steps": steps, **beside}, tmp_path / "file.pt")
        assert unreadable(tmp_path / "file.pt") is None
        assert load_with_report("tiny", tmp_path / "file.pt")[1].steps == 7


def test_one_weight_under_two_names_is_refused(tiny: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="there twice, with and without the prefix"):
        load("tiny", {**tiny, "module.norm.weight": torch.zeros(32)})


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("zipped", [True, False])
def test_what_cannot_be_read_is_known_without_reading_it(
    zipped: bool, tiny: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    file = tmp_path / "file.pt"
    options: dict[str, Any] = {"_use_new_zipfile_serialization": zipped}
    torch.save({"model": tiny, "args": ARGS, "seen": {1}}, file, **options)
    assert unreadable(file) is None
    whole = file.read_bytes()
    for content, reason in (
        ({"model": tiny, "args": Malicious()}, "asks for builtins.getattr, pathlib.Path, pathl"),
        (nn.Linear(2, 2), "asks for torch.nn.modules.linear.Linear, which could run"),
    ):
        torch.save(content, file, **options)
        assert re.search(reason, unreadable(file) or ""), unreadable(file)
    for broken in (whole[:100], b"", b"hello"):
        file.write_bytes(broken)
        assert "is no file of torch.save, or is damaged" in (unreadable(file) or "")


def test_safetensors_that_are_none_are_known_without_reading_them(tmp_path: Path) -> None:
    file = tmp_path / "file.safetensors"
    save_file({"x": torch.zeros(3, dtype=torch.bfloat16)}, file)
    assert unreadable(file) is None
    file.write_bytes(file.read_bytes()[:-1])
    assert "is no .safetensors file, or is damaged" in (unreadable(file) or "")


def test_nothing_in_a_file_is_executed(
    tiny: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": tiny, "args": Malicious()}, "file.pt")
    with pytest.raises(ValueError, match=r"file\.pt is not a checkpoint that can be read safely"):
        load("tiny", "file.pt")
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no file"),
        ({"steps": 3, "epoch": 1}, "no weights found: .* there is epoch, steps"),
        ({}, "there is nothing"),
        ([1, 2], "holds a list, not weights by name"),
    ],
)
def test_files_without_weights(content: Any, message: str, tmp_path: Path) -> None:
    if content is not None:
        torch.save(content, tmp_path / "file.pt")
    with pytest.raises(ValueError, match=message):
        load("GPT-B", tmp_path / "file.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.pt is not a checkpoint"):
        load("GPT-B", tmp_path / "text.pt")


# ── verify ─────────────────────────────────────────────────────────────────────────────────────


def run_verify(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["verify", *arguments], env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_verify_reports_a_good_file(tiny: dict[str, torch.Tensor], tmp_path: Path) -> None:
    file = tmp_path / "file.pt"
    args = argparse.Namespace(note="[/red]")
    torch.save({"model": tiny, "steps": 1234, "args": args}, file)
    code, output = run_verify("tiny", str(file))
    assert code == 0
    for text in ("model", "1,234", "[/red]", "float32", "nothing"):
        assert text in output


def test_verify_reports_codebook_norms_and_what_is_not_finite(
    original: GigaTok, tmp_path: Path
) -> None:
    state = without_head(original.state_dict())
    state["quantize.embedding.weight"] = 2 * state["quantize.embedding.weight"]
    state["quant_conv.bias"] = torch.full((8,), torch.nan)
    del state["post_quant_conv.bias"]
    save_file(state, tmp_path / "file.safetensors")
    code, output = run_verify("S-S", str(tmp_path / "file.safetensors"))
    assert code == 1
    assert "2 to 2, median 2" in output
    assert "no semantic head" in output
    assert "quant_conv.bias holds 8 values that are not finite" in output
    assert "post_quant_conv.bias (256,)" in output


def test_verify_refuses_bad_requests(tmp_path: Path) -> None:
    assert run_verify("S-L", str(tmp_path))[0] == 2
    assert run_verify("S-S", str(tmp_path / "none.pt"))[0] == 2
