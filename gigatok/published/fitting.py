"""Weights of a file into a model: what fits, what is missing, what is left over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from gigatok.config import TokenizerArchitecture
from gigatok.files.foreign_weights import Misfits, compare
from gigatok.files.stored_weights import StoredWeights
from gigatok.models.generator import Generator
from gigatok.models.quantizer import UNFILLED
from gigatok.models.tokenizer import Tokenizer
from gigatok.training.saved import place

USAGE_WINDOW = "quantize.codebook_used"
"""A buffer of training; a file may leave it out."""
HEAD = ".distill_mlp."
"""In the names of the training-only semantic head; a file may leave it out."""

Model = Tokenizer | Generator
AnyModel = TypeVar("AnyModel", Tokenizer, Generator, Model)


@dataclass(frozen=True)
class LoadReport:
    """How a file's weights fit a model. Shapes are by name of the state dict.

    Attributes:
        name: of the model.
        layout: under which key the file holds the weights (`published_files.LAYOUTS`).
        steps: optimizer steps of training, where the file says so.
        args: the trainer's command line, where the file holds it.
        has_head: whether the training-only semantic head is in the file.
        parameters: numbers in the file that have a place in the model, buffers apart.
        misfits: what keeps the weights from filling the model.
        dtypes: number of tensors by type.
    """

    name: str
    layout: str
    steps: int | None
    args: Mapping[str, Any] | None
    has_head: bool
    parameters: int
    misfits: Misfits
    dtypes: Mapping[str, int]

    @property
    def complete(self) -> bool:
        """Whether the model can be filled, and by all of the weights that count."""
        return self.misfits.fits


def has_head(stored: StoredWeights) -> bool:
    """Whether weights hold the training-only semantic head."""
    return any(HEAD in key for key in stored.tensors)


def with_head_of(
    architecture: TokenizerArchitecture, stored: StoredWeights
) -> TokenizerArchitecture:
    """The architecture without a semantic head where the weights have none."""
    if has_head(stored):
        return architecture
    return architecture.model_copy(update={"semantic_weight": 0.0})


def fit(name: str, model: Model, stored: StoredWeights) -> LoadReport:
    """How weights fit a model, which may be on the meta device and is left as it is."""
    parameters = {key for key, _ in model.named_parameters()}
    types = [str(tensor.dtype).removeprefix("torch.") for tensor in stored.tensors.values()]
    return LoadReport(
        name=name,
        layout=stored.layout,
        steps=stored.steps,
        args=stored.args,
        has_head=has_head(stored),
        parameters=sum(stored.tensors[k].numel() for k in parameters & stored.tensors.keys()),
        misfits=compare(model.state_dict(), stored.tensors, optional={USAGE_WINDOW}),
        dtypes={dtype: types.count(dtype) for dtype in sorted(set(types))},
    )


def fill(
    model: AnyModel, stored: StoredWeights, report: LoadReport, device: str = "cpu"
) -> AnyModel:
    """Copy weights into the model that `report` is about, and move it, in eval mode.

    Raises:
        ValueError: weights are missing, unexpected, of another shape or not finite; all kinds
            are listed.
    """
    if not report.complete:
        raise ValueError(misfit(report))
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
    return placed.eval()


def misfit(report: LoadReport) -> str:
    """Why a model cannot be filled, all of it."""
    head = f"these weights (layout {report.layout}) are not those of {report.name}:"
    return "\n  ".join([head, *report.misfits.lines()])
