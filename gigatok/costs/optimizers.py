"""Costs of optimizers: what they hold beside the parameters, and products that a step takes."""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name

from gigatok.config import TrainingConfig
from gigatok.config.kinds.optimizers import OPTIMIZERS
from gigatok.models.layers import Layers, parameters

ADAM_MOMENTS = 2
NEWTON_SCHULZ_STEPS = 5
"""Iterations of Muon's orthogonalisation, the default of `torch.optim.Muon`."""


@dataclass(frozen=True)
class OptimizerCosts:
    """Cost of an optimizer for one model.

    Attributes:
        moments: float32 values that it holds.
        flops: of an optimizer step, whatever the batch; only matrix products count.
    """

    moments: int
    flops: int = 0


def optimizer_costs(config: TrainingConfig, layers: Layers) -> OptimizerCosts:
    """Ask the optimizer of a config what it costs for a model of these layers."""
    layout = OPTIMIZERS[config.optimizer.name].layout
    if layout is None:
        return OptimizerCosts(ADAM_MOMENTS * parameters(layers))
    costs: OptimizerCosts = resolve_name(layout)(layers)
    return costs


def muon_costs(layers: Layers) -> OptimizerCosts:
    """Count one moment for a matrix of a transformer layer, two for everything else."""
    # Such a layer has a stream; matrices elsewhere read or write data, and AdamW has them.
    matrices = [shape for layer in layers if layer.stream for shape in layer.matrices]
    hidden = sum(rows * columns for rows, columns in matrices)
    moments = ADAM_MOMENTS * parameters(layers) - hidden
    return OptimizerCosts(moments, sum(_orthogonalise(min(s), max(s)) for s in matrices))


def _orthogonalise(short: int, long: int) -> int:
    """Count the FLOPs of Newton-Schulz iterations of a matrix."""
    products = (
        2 * short**2 * long  # X X', the Gram matrix, on the short side
        + 2 * short**3  # its square
        + 2 * short**2 * long  # a polynomial of it times X
    )
    return NEWTON_SCHULZ_STEPS * products
