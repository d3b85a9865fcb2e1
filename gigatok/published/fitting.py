"""Fitting of a file's weights to a model: matching, missing and left-over ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from gigatok.config import TokenizerArchitecture
from gigatok.files.foreign_weights import Misfits, compare
from gigatok.files.stored_weights import StoredWeights
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.quantizers.base import UNFILLED
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.training.saved import place

USAGE_WINDOW = "quantize.codebook_used"
"""Buffer of training; a file may leave it out."""
HEAD = ".distill_mlp."
"""Part of the names of the training-only semantic head; a file may leave it out."""

Model = GigaTok | LlamaGen
AnyModel = TypeVar("AnyModel", GigaTok, LlamaGen, Model)


@dataclass(frozen=True)
class LoadReport:
    """Report of how a file's weights fit a model. Shapes are by name of the state dict.

    Attributes:
        name: name of the model.
        layout: key under which the file holds the weights (`gigatok.files.stored_weights`).
        steps: optimizer steps of training, if the file tells.
        args: the trainer's command line, if the file holds it.
        has_head: true if the training-only semantic head is in the file.
        parameters: number of values in the file with a place in the model, without buffers.
        misfits: everything that keeps the weights from filling the model.
        dtypes: type -> number of tensors.
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
        """True if the weights fill the model, and nothing unexplained is left over."""
        return self.misfits.fits


def has_head(stored: StoredWeights) -> bool:
    """Tell whether weights hold the training-only semantic head."""
    return any(HEAD in key for key in stored.tensors)


def with_head_of(
    architecture: TokenizerArchitecture, stored: StoredWeights
) -> TokenizerArchitecture:
    """Return the architecture, without a semantic head if the weights have none."""
    if has_head(stored):
        return architecture
    # Weight 0 builds no head.
    return architecture.model_copy(update={"semantic_weight": 0.0})


def fit(name: str, model: Model, stored: StoredWeights) -> LoadReport:
    """Compare weights with a model, which may be on the meta device and is not changed."""
    # Buffers are left out, as the authors' counts leave them out.
    parameters = {key for key, _ in model.named_parameters()}
    # Shown to the user: a file in half precision gives other scores than one in full.
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
    """Copy weights into the model that `report` is about, and move it to a device, in eval mode.

    Raises:
        ValueError: weights are missing, unexpected, of another shape or not finite; all kinds
            are listed.
    """
    if not report.complete:
        raise ValueError(misfit(report))
    expected = model.state_dict()
    state = {
        # Files may be fp16 or float64; the model computes in its own type.
        key: tensor.to(expected[key].dtype, copy=True)
        for key, tensor in stored.tensors.items()
        if key in expected
    }
    if USAGE_WINDOW in expected:
        # A window that a file leaves out is empty: no code has been seen yet.
        state.setdefault(USAGE_WINDOW, torch.full(expected[USAGE_WINDOW].shape, UNFILLED))
    # Assigned: the model may be on the meta device, where there is nothing to copy into.
    model.load_state_dict(state, assign=True)
    placed = place(model, device) if isinstance(model, GigaTok) else model.to(device)
    return placed.eval()


def misfit(report: LoadReport) -> str:
    """Say everything that keeps a model from being filled."""
    head = f"these weights (layout {report.layout}) are not those of {report.name}:"
    return "\n  ".join([head, *report.misfits.lines()])
