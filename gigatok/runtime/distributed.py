"""Collectives and parallelism of several processes that train one model together.

They are started with torchrun's environment (`gigatok.runtime.context.Ranks`, and MASTER_ADDR and
MASTER_PORT where they are on several machines) and see the same files. Each takes its slice of
every batch. In a single process, everything here is the identity and costs nothing.

All ranks must call collectives in the same order. `Trainer` and the functions below do, and so
must everything that a stage passes to the trainer.

FSDP is imported where several processes need it: with sympy and all that comes with it, it takes
as long as torch itself, and stages that train nothing would wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.distributed import FileStore  # type: ignore[attr-defined]
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from gigatok.config import TrainingConfig
from gigatok.runtime.context import Ranks

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

V = TypeVar("V")

MEETING_TIME = timedelta(minutes=30)
"""How long ranks wait for each other's addresses; the default of torch's process groups."""
FORWARD_METHODS = ("encode_latents",)
"""Further methods that compute with the parameters and are called during training."""


@contextmanager
def process_group(ranks: Ranks) -> Iterator[None]:
    """Join the other processes: gloo for tensors on the CPU, nccl for tensors on a GPU.

    After an exception the group is left as it is: closing it would wait for the others.
    """
    if ranks.world == 1:
        yield
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(ranks.local_rank)
        # Both: votes and plain values stay on the CPU, so they need not wait for the GPU.
        backend = "cpu:gloo,cuda:nccl"
    store = None  # then torch makes one at MASTER_ADDR and MASTER_PORT
    if ranks.meeting is not None:
        store = FileStore(ranks.meeting, ranks.world)
        # Its own 5 minutes are short for ranks that wait for the first while that reads its data.
        store.set_timeout(MEETING_TIME)
    dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.world)
    yield
    dist.destroy_process_group()


def world() -> int:
    """Return the number of processes that work together."""
    # Asked of torch each time: the group is made and destroyed while this module is loaded.
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if world() > 1 else 0


def is_main() -> bool:
    """Tell whether this process is the one that writes files and reports."""
    return rank() == 0


def barrier() -> None:
    """Wait until all processes are here."""
    # A vote, and not `dist.barrier`, which under nccl would occupy the GPU.
    any_rank(False)


def any_rank(flag: bool) -> bool:
    """Tell whether the flag is set in any process. Does not wait for the GPU."""
    if world() == 1:
        return flag
    votes = torch.tensor(int(flag))
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return bool(votes)


def from_main(value: int) -> int:
    """Return the main process's value in every process."""
    if world() == 1:
        return value
    shared = torch.tensor(value)
    dist.broadcast(shared, 0)
    return int(shared)


def gather_values(value: V) -> list[V]:
    """Gather plain values of all processes, in the order of ranks, in every process."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    # Pickled, but only between processes of this very stage.
    dist.all_gather_object(values, value)
    return values


def mean(tensor: Tensor) -> Tensor:
    """Average a tensor of any shape over the processes, without gradient."""
    if world() == 1:
        return tensor.detach()
    # A copy: `all_reduce` works in place, and the caller still uses its own value.
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / world()


def batch_mean(tensor: Tensor) -> Tensor:
    """Average over the processes a statistic of each one's slice of the batch.

    Its gradient is that of the local statistic: gradients of parameters are averaged over the
    processes afterwards, which supplies the factor 1 / world and the other slices' terms.
    """
    if world() == 1:
        return tensor
    # The value of the mean, the gradient of the local term.
    return tensor + (mean(tensor) - tensor.detach())


class _JointMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        return mean(tensor)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        # Each process's loss depends on the mean, which depends on each process's tensor.
        return mean(gradient)


def joint_mean(tensor: Tensor) -> Tensor:
    """Average over the processes; the losses of all of them send gradients back through it.

    For statistics from which every process computes something else, such as those of batch norms.
    If all compute the same from it, `batch_mean` needs no collective in the backward pass.
    """
    if world() == 1:
        return tensor
    joined: Tensor = _JointMean.apply(tensor)  # type: ignore[no-untyped-call]
    return joined


@torch.no_grad()
def average_gradients(model: nn.Module) -> None:
    """Replace every gradient by its mean over the processes, for models not parallelised."""
    if world() == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    # One collective for all parameters: the discriminator's many small ones cost latency each.
    averages = mean(torch.cat([gradient.flatten() for gradient in gradients]))
    parts = torch.split(averages, [gradient.numel() for gradient in gradients])
    for gradient, average in zip(gradients, parts, strict=True):
        gradient.copy_(average.view_as(gradient))


@torch.no_grad()
def gather(tensor: Tensor) -> Tensor:
    """Concatenate tensors of all processes, of equal shapes, in the order of their slices."""
    if world() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world())]
    # Collectives read memory as it lies, so channels-last tensors must be laid out first.
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def whole(tensor: Tensor) -> Tensor:
    """Return the whole of a tensor of which this process may hold only a shard."""
    return tensor.full_tensor() if _is_sharded(tensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds: its shard, or all of it."""
    return tensor.to_local() if _is_sharded(tensor) else tensor


def _is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    if world() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


@torch.no_grad()
def assign(parameter: Tensor, value: Tensor) -> None:
    """Overwrite a parameter, sharded or not, with the main process's value on every rank."""
    if world() > 1:
        value = value.to(parameter.dtype, copy=True).contiguous()
        dist.broadcast(value, 0)
    if _is_sharded(parameter):
        from torch.distributed.tensor import distribute_tensor

        mesh, placements = parameter.device_mesh, parameter.placements
        # Without a source rank: the broadcast above has given every rank the whole value.
        value = distribute_tensor(value, mesh, placements, src_data_rank=None)
    parameter.copy_(value)


def parallelise(model: nn.Module, config: TrainingConfig) -> nn.Module:
    """Return the module to call in training instead of `model`, which is changed in place.

    * One process: the model.
    * `ddp`: every process holds the model; gradients are averaged.
    * `fsdp`: every process holds a shard of each parameter, gradient and moment, and gathers one
      layer at a time (FSDP2). Parameters become `DTensor`s, so make the optimizer afterwards.

    The model keeps its names, and all ranks start from rank 0's weights. Parameters stay in
    float32 under both, and only autocast lowers the precision, so that `fsdp` computes what `ddp`
    does. With `compile`, torch.compile speeds up the result, for batches of one shape.
    """
    forward = model
    if world() > 1 and config.parallel == "fsdp":
        _shard(model)
    elif world() > 1:
        forward = DistributedDataParallel(model, gradient_as_bucket_view=True)
    return _compiled(model, forward, config) if config.compile else forward


def _compiled(model: nn.Module, forward: nn.Module, config: TrainingConfig) -> nn.Module:
    """Compile part by part where a model names its parts, otherwise all of it."""
    parts = getattr(model, "compiled_parts", ())
    # FSDP gathers a part in a hook, which must stay outside of what is compiled.
    if parts and not (world() > 1 and config.parallel == "fsdp"):
        for part in parts:
            part.compile(dynamic=False)
        return forward
    if (quantizer := getattr(model, "quantize", None)) is not None:
        # Between two graphs: it switches precisions, which a graph would not follow.
        quantizer.forward = torch.compiler.disable(quantizer.forward)  # type: ignore[no-untyped-call]
    return torch.compile(forward, dynamic=False)  # type: ignore[return-value]


def _shard(model: nn.Module) -> None:
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # FSDP shards by rows, which in channels-last weights are not contiguous pieces of memory.
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    # DDP broadcasts on its own; `fully_shard` takes each rank's weights as they are.
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            dist.broadcast(tensor, 0)
    mesh = init_device_mesh(next(model.parameters()).device.type, (world(),))
    # Of tokenizers and generators; every other model is one piece.
    for layer in getattr(model, "blocks", ()):
        fully_shard(layer, mesh=mesh)
    # The root is freed after its forward pass too: between steps all parameters are shards.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    for name in FORWARD_METHODS:
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)


def without_sync(forward: nn.Module | None) -> AbstractContextManager[object]:
    """Skip averaging the gradients in this backward pass: a later one of the same step does it.

    For the result of `parallelise` under `ddp`. Otherwise it does nothing: under `fsdp`, whole
    gradients would have to be kept.
    """
    # Below `torch.compile`, which wraps the module and hides its type.
    inner = getattr(forward, "_orig_mod", forward)
    return inner.no_sync() if isinstance(inner, DistributedDataParallel) else nullcontext()


def gathered(model: nn.Module) -> None:
    """Gather all of a sharded model on every rank at the end of training, for evaluation.

    Its state dict is still that of shards, so save the model before.
    """
    if world() == 1:
        return
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
