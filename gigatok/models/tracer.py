"""Process behind `gigatok.models.traced`, started with `python -m gigatok.models.tracer`.

It reads subjects from stdin, a line of JSON each, and writes what each costs to stdout, until it
has waited a minute for the next one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from gigatok import plugins
from gigatok.models.traced import Input, Subject, Traced, TraceError
from gigatok.plugins import load_file, load_module

# Two sizes, so that what does not grow with the batch falls out of the difference. Not 1: batch
# norms refuse it. Even, as some discriminators group a batch in pairs.
BATCHES = (2, 4)
IDLE_SECONDS = 60.0
Slow = Callable[[str], object]
"""Function that is told why a subject has to run on the CPU, before it does."""


def trace(subject: Subject, slow: Slow = lambda note: None) -> Traced:
    """Count what a subject costs per image, in this process.

    Args:
        subject: network and inputs.
        slow: told why it has to run on the CPU.

    Raises:
        TraceError: it cannot be built or run; names the place in the plug-in.
    """
    try:
        return _on("meta", subject)
    # Whatever it is: the CPU knows better if it is a mistake or a read of a value.
    except Exception as error:
        note = (
            f"{subject.title} cannot be traced on torch's meta device{_place(error)}: {error}. "
            "Values that are read at run time do not exist there; give it a layout. It is "
            "measured on the CPU instead, with small batches"
        )
    slow(note)
    try:
        return replace(_on("cpu", subject), note=note)
    except Exception as error:
        kind = type(error).__name__
        raise TraceError(f"{subject.title}: {kind}: {error}{_place(error)}") from error


def _on(device: str, subject: Subject) -> Traced:
    torch.manual_seed(0)
    # Around the run as well: code that makes tensors without a device makes them there.
    with torch.device(device):
        thing = resolve_name(subject.build)(*subject.args, **subject.kwargs)
        if isinstance(thing, nn.Module):
            thing.train(subject.training)
        small, large = (_run(thing, subject, batch) for batch in BATCHES)
    images = BATCHES[1] - BATCHES[0]
    # After the run: lazy modules have their parameters only then.
    parameters = thing.parameters() if isinstance(thing, nn.Module) else ()
    return Traced(
        parameters=sum(p.numel() for p in parameters),
        flops=(large.forward - small.forward) // images,
        backward=(large.backward - small.backward) // images,
        kept=(large.kept - small.kept) // images,
        largest=(large.largest - small.largest) // images,
        outputs=tuple(tuple(one.shape[1:]) for one in large.outputs),
    )


@dataclass(frozen=True)
class _CountedRun:
    """Counts of one batch."""

    forward: int
    backward: int
    kept: int
    largest: int
    outputs: tuple[Tensor, ...]


def _run(thing: Any, subject: Subject, batch: int) -> _CountedRun:
    inputs = [_tensor(one, batch) for one in subject.inputs]
    kept, largest = _Kept(), _Largest()
    forward, backward = FlopCounterMode(display=False), FlopCounterMode(display=False)
    grad = torch.set_grad_enabled(subject.training)
    with grad, largest, forward, _plain_attention(kept), saved_tensors_hooks(kept.keep, _same):
        outputs = tuple(_tensors(getattr(thing, subject.call)(*inputs)))
    ends = [one for one in outputs if one.requires_grad]
    for one in ends:
        kept.keep(one)
    held = [*thing.parameters(), *thing.buffers()] if isinstance(thing, nn.Module) else []
    values = kept.values(without=[*inputs, *held])
    if ends:
        with largest, backward:
            torch.autograd.backward(ends, [torch.ones_like(one) for one in ends])
    counts = forward.get_total_flops(), backward.get_total_flops()
    return _CountedRun(*counts, values, largest.values, outputs)


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _tensor(one: Input, batch: int) -> Tensor:
    dtype = getattr(torch, one.dtype)
    if not dtype.is_floating_point:
        return torch.zeros(batch, *one.shape, dtype=dtype)
    made = torch.randn(batch, *one.shape, dtype=dtype)
    return made.requires_grad_(one.gradient)


def _tensors(output: Any) -> Iterator[Tensor]:
    """Find the tensors in what a call returns, however deep in tuples, dicts and dataclasses."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()))
    elif isinstance(output, list | tuple):
        for item in output:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(output):
        yield from _tensors([getattr(output, one.name) for one in dataclasses.fields(output)])


class _Kept:
    """Memory held for the backward pass: storages, as views of one take no more."""

    def __init__(self) -> None:
        # With a tensor of each: the address of a freed storage would be used again.
        self._found: dict[int, Tensor] = {}

    def keep(self, tensor: Tensor) -> Tensor:
        """Note a tensor that autograd saves, and return it."""
        self._found[_storage(tensor)] = tensor
        return tensor

    def values(self, without: list[Tensor]) -> int:
        """Count in float32 values, without storages that are there anyway."""
        there = {_storage(tensor) for tensor in without}
        found = (t for address, t in self._found.items() if address not in there)
        return sum(_bytes(tensor) for tensor in found) // 4


class _Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Search for the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        sizes = (_bytes(leaf) // 4 for leaf in tree_leaves(made) if isinstance(leaf, Tensor))
        self.values = max(self.values, *sizes, 0)
        return made


def _storage(tensor: Tensor) -> int:
    # The address of the storage itself; that of its data is 0 on the meta device.
    return int(tensor.untyped_storage()._cdata)


def _bytes(tensor: Tensor) -> int:
    return int(tensor.untyped_storage().nbytes())


@contextmanager
def _plain_attention(kept: _Kept) -> Iterator[None]:
    """Count attention as layouts do: FLOPs of its plain form, memory of a fused kernel.

    The meta device knows the plain form alone, whose scores no GPU keeps.
    """
    plain = F.scaled_dot_product_attention

    def attention(query: Tensor, key: Tensor, value: Tensor, *args: Any, **more: Any) -> Tensor:
        with saved_tensors_hooks(_same, _same), sdpa_kernel(SDPBackend.MATH):
            attended = plain(query, key, value, *args, **more)
        if attended.requires_grad:
            # The logarithms of the softmax's denominators are the last.
            for tensor in (query, key, value, attended, attended.new_empty(attended.shape[:-1])):
                kept.keep(tensor)
        return attended

    # A mode for torch functions would not do: it does not see into `nn.MultiheadAttention`.
    F.scaled_dot_product_attention = attention
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fused layers, which the counter knows not
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain
        torch.backends.mha.set_fastpath_enabled(fast)


def _place(error: Exception) -> str:
    """Say where in a plug-in an error arose; else where outside of torch."""
    frames = traceback.extract_tb(error.__traceback__)
    roots = [_root(package) for package in plugins.LOADED]
    torch_root = Path(torch.__file__).parent
    own = [f for f in frames if any(Path(f.filename).is_relative_to(root) for root in roots)]
    outside = [
        f
        for f in frames
        if not f.filename.startswith("<") and not Path(f.filename).is_relative_to(torch_root)
    ]
    frame = (own or outside or frames)[-1]
    return f" ({frame.filename}, line {frame.lineno})"


def _root(package: str) -> Path:
    """Return the file of a plug-in, or its folder."""
    file = plugins.LOADED[package].file or Path(sys.modules[package].__file__ or "")
    return file.parent if file.name == "__init__.py" else file


# The process


def main() -> None:
    """Answer requests on stdin until there are none for a while."""
    # What a plug-in prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    requests = os.fdopen(0, "rb", buffering=0)
    while select.select([requests], [], [], IDLE_SECONDS)[0]:
        line = requests.readline()
        if not line:
            return

        def slow(note: str) -> None:
            print(json.dumps({"slow": note}), file=answers)

        print(json.dumps(answer(json.loads(line), slow)), file=answers)


def answer(request: dict[str, Any], slow: Slow) -> dict[str, Any]:
    """Trace what a request describes; an error becomes its message."""
    try:
        for plugin in request.pop("plugins"):
            _load(**plugin)
        return asdict(trace(_subject(request), slow))
    except ValueError as error:
        return {"error": str(error)}


def _load(name: str, file: str | None, identity: str) -> None:
    here = load_module(name) if file is None else load_file(name, Path(file))
    if here.identity != identity:
        raise TraceError(f"plug-in {name} has changed since it was loaded; start again")


def _subject(request: dict[str, Any]) -> Subject:
    inputs = tuple(Input(**{**one, "shape": tuple(one["shape"])}) for one in request["inputs"])
    args = tuple(_value(value) for value in request["args"])
    kwargs = {name: _value(value) for name, value in request["kwargs"].items()}
    return Subject(**{**request, "inputs": inputs, "args": args, "kwargs": kwargs})


def _value(sent: Any) -> Any:
    if isinstance(sent, dict):
        return resolve_name(sent["config"]).model_validate(sent["values"])
    return [_value(item) for item in sent] if isinstance(sent, list) else sent


if __name__ == "__main__":
    main()
