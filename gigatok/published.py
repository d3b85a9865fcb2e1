"""The published models by name: build them, load the authors' checkpoints, verify a file.

    python -m gigatok.published verify S-B VQ_SB256_e200.pt

Names are the paper's: tokenizers encoder-decoder, with `-2d` for the baseline; generators GPT-B to
GPT-XXXL, with `-2d` for axial rotary positions.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from gigatok.config import GeneratorArchitecture, TokenizerArchitecture
from gigatok.models.generator import Generator
from gigatok.models.quantizer import UNFILLED
from gigatok.models.tokenizer import Tokenizer
from gigatok.published_files import StoredWeights, read_weights
from gigatok.saved import place
from gigatok.sizes import GENERATOR_SIZES, TOKENIZER_SIZES

IMAGE_SIZE, NUM_CLASSES, NUM_TOKENS, CODEBOOK_SIZE = 256, 1000, 256, 16384
USAGE_WINDOW = "quantize.codebook_used"
"""A buffer of training; a file may leave it out."""

Model = Tokenizer | Generator
Architecture = TokenizerArchitecture | GeneratorArchitecture
Source = Path | str | Mapping[str, Any]
"""A file, or what was loaded from one: a checkpoint or a state dict."""


@dataclass(frozen=True)
class Published:
    """A published model.

    Attributes:
        architecture: with the training options that its weights were trained under.
        parameters: as the authors count, with the training-only semantic head.
        origin: the authors' config file, or model class.
    """

    architecture: Architecture
    parameters: int
    origin: str


def _tokenizer(name: str, **options: Any) -> TokenizerArchitecture:
    encoder, decoder = (TOKENIZER_SIZES[letter] for letter in name.split("-"))
    return TokenizerArchitecture(encoder=encoder, decoder=decoder, **options)


def _generator(letter: str, *, rope: bool) -> GeneratorArchitecture:
    position: Any = "rope_2d" if rope else "learned"
    return GeneratorArchitecture(
        size=GENERATOR_SIZES[letter], position=position, reference_rope_quirk=rope
    )


_B_L = 621_637_131
PUBLISHED: dict[str, Published] = {
    "S-S": Published(_tokenizer("S-S"), 136_073_227, "VQ_SS256"),
    "S-B": Published(_tokenizer("S-B"), 232_399_627, "VQ_SB256"),
    "B-L": Published(_tokenizer("B-L"), _B_L, "VQ_BL256"),
    "B-L-dino": Published(_tokenizer("B-L"), _B_L, "VQ_BL256_dino_disc"),
    "B-L-entropy": Published(
        _tokenizer("B-L", entropy_weight=0.005, rotation_trick=False),
        _B_L,
        "VQ_BL256_train_new",
    ),
    "XL-XXL": Published(_tokenizer("XL-XXL", entropy_weight=0.005), 2_893_970_443, "VQ_XLXXL256"),
    "S-S-2d": Published(
        _tokenizer("S-S", variant="2d", transformer_layer="qformer"), 135_548_427, "VQ_SS256_2d"
    ),
    "S-B-2d": Published(_tokenizer("S-B", variant="2d"), 197_132_555, "VQ_SB256_2d"),
    "B-L-2d": Published(
        _tokenizer("B-L", variant="2d", entropy_weight=0.005), 491_410_187, "VQ_BL256_2d"
    ),
    "GPT-B": Published(_generator("B", rope=False), 111_085_824, "gpt_1d.py"),
    "GPT-L": Published(_generator("L", rope=False), 343_174_144, "gpt_1d.py"),
    "GPT-XL": Published(_generator("XL", rope=False), 775_028_480, "gpt_1d.py"),
    "GPT-XXL": Published(_generator("XXL", rope=False), 1_411_367_424, "gpt_1d.py"),
    "GPT-XXXL": Published(_generator("XXXL", rope=False), 3_893_685_760, "gpt_1d.py"),
    "GPT-B-2d": Published(_generator("B", rope=True), 110_888_448, "gpt.py"),
    "GPT-L-2d": Published(_generator("L", rope=True), 342_910_976, "gpt.py"),
    "GPT-XL-2d": Published(_generator("XL", rope=True), 774_699_520, "gpt.py"),
    "GPT-XXL-2d": Published(_generator("XXL", rope=True), 1_410_972_672, "gpt.py"),
}
"""By the name that `build` and `load` take."""


@dataclass(frozen=True)
class LoadReport:
    """How a file's weights fit a published model. Shapes are by name of the state dict.

    Attributes:
        name: of the model.
        layout: under which key the file holds the weights (`published_files.LAYOUTS`).
        steps: optimizer steps of training, where the file says so.
        args: the trainer's command line, where the file holds it.
        has_head: whether the training-only semantic head is in the file.
        parameters: numbers in the file that have a place in the model, buffers apart.
        missing: what the model needs and the file lacks.
        unexpected: what the file holds beside.
        mismatched: expected and found shape of what is there in another shape.
        dtypes: number of tensors by type.
    """

    name: str
    layout: str
    steps: int | None
    args: Mapping[str, Any] | None
    has_head: bool
    parameters: int
    missing: Mapping[str, tuple[int, ...]]
    unexpected: Mapping[str, tuple[int, ...]]
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    dtypes: Mapping[str, int]

    @property
    def complete(self) -> bool:
        """Whether the model can be filled; what is unexpected is ignored."""
        return not self.missing and not self.mismatched


def build(name: str) -> Model:
    """A published model with fresh weights, in training mode.

    Under `torch.device("meta")` nothing is allocated.

    Raises:
        ValueError: no model has that name.
    """
    return _construct(_find(name).architecture)


def load(name: str, source: Source, device: str = "cpu") -> Model:
    """A published model with the weights of a checkpoint, in float32 and eval mode.

    Where the checkpoint has no semantic head, neither has the model. A warning lists what the
    checkpoint holds beside.

    Raises:
        ValueError: no model has that name, the file cannot be read, or weights are missing or of
            another shape; all of them are listed.
    """
    model, report = load_with_report(name, source, device)
    if report.unexpected:
        warnings.warn(f"ignored: {_listed(report.unexpected)}", stacklevel=2)
    return model


def load_with_report(name: str, source: Source, device: str = "cpu") -> tuple[Model, LoadReport]:
    """What `load` returns, without its warning, and how the weights fitted.

    Raises:
        ValueError: as `load`.
    """
    stored = read_weights(source)
    model, report = _fit(name, stored)
    if not report.complete:
        raise ValueError(_misfit(report))
    expected = model.state_dict()
    state = {
        key: tensor.to(expected[key].dtype, copy=True)
        for key, tensor in stored.tensors.items()
        if key in expected
    }
    if USAGE_WINDOW in expected:
        state.setdefault(USAGE_WINDOW, torch.full(expected[USAGE_WINDOW].shape, UNFILLED))
    model.load_state_dict(state, assign=True)
    placed = place(model, device) if isinstance(model, Tokenizer) else model.to(device)
    return placed.eval(), report


def inspect(name: str, stored: StoredWeights) -> LoadReport:
    """How weights fit a published model, without filling it.

    Raises:
        ValueError: no model has that name.
    """
    return _fit(name, stored)[1]


def _find(name: str) -> Published:
    if name not in PUBLISHED:
        raise ValueError(f"no published model {name!r}; there are {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def _construct(architecture: Architecture) -> Model:
    if isinstance(architecture, TokenizerArchitecture):
        return Tokenizer(architecture, IMAGE_SIZE)
    return Generator(architecture, CODEBOOK_SIZE, NUM_CLASSES, NUM_TOKENS)


def _fit(name: str, stored: StoredWeights) -> tuple[Model, LoadReport]:
    """The model without memory, with a head if the weights have one, and how they fit it."""
    architecture = _find(name).architecture
    has_head = any(".distill_mlp." in key for key in stored.tensors)
    if isinstance(architecture, TokenizerArchitecture) and not has_head:
        architecture = architecture.model_copy(update={"semantic_weight": 0.0})
    with torch.device("meta"):
        model = _construct(architecture)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in stored.tensors.items()}
    both = expected.keys() & found.keys()
    parameters = {key for key, _ in model.named_parameters()}
    types = [str(tensor.dtype).removeprefix("torch.") for tensor in stored.tensors.values()]
    report = LoadReport(
        name=name,
        layout=stored.layout,
        steps=stored.steps,
        args=stored.args,
        has_head=has_head,
        parameters=sum(stored.tensors[key].numel() for key in both & parameters),
        missing={k: v for k, v in expected.items() if k not in found and k != USAGE_WINDOW},
        unexpected={k: v for k, v in found.items() if k not in expected},
        mismatched={k: (expected[k], found[k]) for k in sorted(both) if expected[k] != found[k]},
        dtypes={dtype: types.count(dtype) for dtype in sorted(set(types))},
    )
    return model, report


def _listed(shapes: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())


def _misfit(report: LoadReport) -> str:
    lines = [f"these weights (layout {report.layout}) are not those of {report.name}:"]
    if report.missing:
        lines.append(f"missing: {_listed(report.missing)}")
    for key, (expected, found) in report.mismatched.items():
        lines.append(f"{key} is {found}, expected {expected}")
    if report.unexpected:
        lines.append(f"unexpected: {_listed(report.unexpected)}")
    return "\n  ".join(lines)


@dataclass(frozen=True)
class Values:
    """What the numbers of a checkpoint look like.

    Attributes:
        not_finite: names of tensors with NaN or infinity.
        codebook_norms: smallest, median and largest length of codebook rows; None without one.
    """

    not_finite: tuple[str, ...]
    codebook_norms: tuple[float, float, float] | None


def examine(tensors: Mapping[str, Tensor]) -> Values:
    """Look through all values; the weights are read from disk one after the other."""
    codebook = tensors.get("quantize.embedding.weight")
    norms = None
    if codebook is not None:
        lengths = codebook.float().norm(dim=-1)
        norms = (lengths.min().item(), lengths.median().item(), lengths.max().item())
    bad = (name for name, tensor in tensors.items() if not tensor.isfinite().all())
    return Values(tuple(bad), norms)


def report_table(report: LoadReport, values: Values) -> Table:
    """What `verify` prints."""
    published = PUBLISHED[report.name]
    head = "" if report.has_head or report.name.startswith("GPT") else ", no semantic head"
    rows = {
        "published as": f"{published.origin}, {published.parameters:,} parameters",
        "layout": report.layout,
        "parameters": f"{report.parameters:,} found{head}",
        "types": ", ".join(f"{count} {dtype}" for dtype, count in report.dtypes.items()),
        "steps": "not stored" if report.steps is None else f"{report.steps:,}",
        "args": "not stored" if report.args is None else str(dict(report.args)),
        "missing": _listed(report.missing) or "nothing",
        "other shape": _listed(report.mismatched) or "nothing",
        "unexpected": _listed(report.unexpected) or "nothing",
        "not finite": ", ".join(values.not_finite) or "nothing",
    }
    if values.codebook_norms is not None:
        low, middle, high = values.codebook_norms
        rows["codebook norms"] = f"{low:.3g} to {high:.3g}, median {middle:.3g}"
    table = Table("", report.name)
    for label, text in rows.items():
        table.add_row(label, Text(text))
    return table


app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def main() -> None:
    """Published models and their checkpoints."""


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(PUBLISHED)}.")],
    file: Annotated[Path, typer.Argument(help="A .pt, .pth or .safetensors file.")],
) -> None:
    """Say whether a file holds the weights of a published model. Exit code 1: it does not."""
    try:
        _find(name)
        stored = read_weights(file)
    except ValueError as error:
        Console(stderr=True).print(str(error), style="red", soft_wrap=True, markup=False)
        raise typer.Exit(2) from error
    report, values = inspect(name, stored), examine(stored.tensors)
    Console().print(report_table(report, values))
    if not report.complete or values.not_finite:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
