"""Files that survive a kill at any moment: training checkpoints and self-describing models.

A checkpoint is the folder `step-<n>`, written under another name and renamed when everything in
it is on disk. Tensors are in the format of torch.distributed.checkpoint, each process writing what
it holds, so that any number of processes can resume from it; all else is in `state.json`.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from gigatok.distributed import barrier, from_main, is_main, whole, world
from gigatok.unpickling import load_checkpoint_metadata

KEPT_CHECKPOINTS = 2


class Stateful(Protocol):
    """A part of the training state: a module, an optimizer's moments, a gradient scaler.

    `state_dict` must hold the live tensors, not copies, under keys without `/`: loading writes
    into them first, and then calls `load_state_dict` with all of the state.
    """

    def state_dict(self) -> Mapping[str, Any]:
        """Tensors and JSON values, in nested mappings."""

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Take over a state with the same keys."""


class OptimizerState:
    """The moments of an optimizer by parameter name, whatever their order or sharding.

    Its settings are not part of it: they are those of the config, and of the step.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model = model
        self._optimizer = optimizer

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Parameter name -> moment -> tensor."""
        state = self._optimizer.state
        return {name: dict(state[p]) for name, p in self._model.named_parameters() if p in state}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copy saved moments into the optimizer's."""
        for name, moments in self.state_dict().items():
            for moment, tensor in moments.items():
                tensor.copy_(state[name][moment])


def write_durably(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file under a temporary name, flush it to disk, then rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    _flush(path.parent)


def save_checkpoint(folder: Path, step: int, parts: Mapping[str, Stateful]) -> None:
    """Save training state as of `step` finished steps; the newest two checkpoints are kept.

    Called by all processes. A step that is saved already is left alone.
    """
    path = folder / f"step-{step:09d}"
    if from_main(path.exists()):
        return
    temporary = path.with_name(f".{path.name}")
    if is_main():
        for leftover in folder.glob(".step-*"):
            shutil.rmtree(leftover)
        temporary.mkdir(parents=True)
    barrier()
    tensors, rest = _split(parts)
    with _alone_or_together() as no_dist:
        save(tensors, storage_writer=FileSystemWriter(temporary), no_dist=no_dist)
    if is_main():
        text = json.dumps(rest, indent=1)
        write_durably(temporary / "state.json", lambda file: _write_text(file, text))
        temporary.rename(path)
        _flush(folder)
        _remove_old(folder)


def load_checkpoint(folder: Path, parts: Mapping[str, Stateful]) -> int | None:
    """Load the newest checkpoint into `parts` and return its step; None where there is none.

    Called by all processes, of which there may be more or fewer than when it was saved.

    Raises:
        ValueError: the checkpoint lacks something, or has it in another shape.
    """
    found = sorted(folder.glob("step-*"))
    step = from_main(int(found[-1].name.removeprefix("step-")) if found else -1)
    if step < 0:
        return None
    path = folder / f"step-{step:09d}"
    tensors, _ = _split(parts)
    try:
        with _alone_or_together() as no_dist:
            load(tensors, storage_reader=_Reader(path), no_dist=no_dist)
    except CheckpointException as error:
        causes = "; ".join(str(cause) for cause, _ in error.failures.values())
        raise ValueError(f"{path} does not fit what is trained here: {causes}") from error
    rest = json.loads((path / "state.json").read_text(encoding="utf-8"))
    for name, part in parts.items():
        part.load_state_dict(_join(name, {**tensors, **rest}))
    return step


class _Reader(FileSystemReader):
    """Reads a checkpoint without letting its index run code."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The index: which file holds which piece of which tensor."""
        metadata: Metadata = load_checkpoint_metadata(Path(self.path) / ".metadata")
        assert metadata.storage_meta is not None
        metadata.storage_meta.load_id = self.load_id
        return metadata


def save_model(folder: Path, model: nn.Module, description: Mapping[str, Any]) -> None:
    """Write `model.safetensors` and `model.json`, which says how to build the module.

    Called by all processes; the main one writes.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        value = whole(tensor.detach())
        if is_main():
            tensors[name] = value.contiguous().cpu()
    if is_main():
        text = json.dumps(description, indent=1)
        write_durably(folder / "model.json", lambda file: _write_text(file, text))
        write_durably(folder / "model.safetensors", lambda file: save_file(tensors, file))


def read_description(folder: Path) -> dict[str, Any]:
    """How to build the model that was saved in a folder."""
    description: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    return description


def load_weights(folder: Path, model: nn.Module) -> None:
    """Load `model.safetensors` of a folder into a module that was built from its description."""
    model.load_state_dict(load_file(folder / "model.safetensors"))


def _split(parts: Mapping[str, Stateful]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and other values of all parts, by their paths."""
    leaves = [leaf for name, part in parts.items() for leaf in _leaves(name, part.state_dict())]
    tensors = {path: value for path, value in leaves if isinstance(value, Tensor)}
    rest = {path: value for path, value in leaves if not isinstance(value, Tensor)}
    return tensors, rest


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            assert "/" not in key
            yield from _leaves(f"{path}/{key}", child)
    else:
        yield path, value


def _join(name: str, leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `_split` for one part."""
    state: dict[str, Any] = {}
    for path, value in leaves.items():
        part, *keys, last = path.split("/")
        if part == name:
            branch = state
            for key in keys:
                branch = branch.setdefault(key, {})
            branch[last] = value
    return state


@contextmanager
def _alone_or_together() -> Iterator[bool]:
    """Yields `no_dist`, of whose being true torch warns although it was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield world() == 1


def _remove_old(folder: Path) -> None:
    for old in sorted(folder.glob("step-*"))[:-KEPT_CHECKPOINTS]:
        # Renamed first, so that no kill leaves a part of it under its name.
        shutil.rmtree(old.rename(old.with_name(f".{old.name}")))


def _flush(folder: Path) -> None:
    """Make the names of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
