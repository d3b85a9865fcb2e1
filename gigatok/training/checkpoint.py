"""Files that survive a kill at any moment: training checkpoints and self-describing models.

A checkpoint is the folder `step-<n>`, written under another name and renamed when everything in
it is on disk. Tensors are in the format of torch.distributed.checkpoint, each process writing what
it holds, so that any number of processes can resume from it; all else is in `state.json`. The
last file is `index.json`, with size and hash of every other: only what it confirms is loaded.
"""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
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

from gigatok.files.durable import (
    Damaged,
    Facts,
    check_file,
    facts_of,
    make_folder,
    read_checked,
    remove,
    step_path,
    steps,
    sync,
    write_checked,
    write_durably,
)
from gigatok.files.unpickling import load_checkpoint_metadata
from gigatok.runtime.distributed import (
    barrier,
    from_main,
    gather_values,
    is_main,
    rank,
    whole,
    world,
)

KEPT_CHECKPOINTS = 2
INDEX_FILE = "index.json"

_log = logging.getLogger(__name__)


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


def save_checkpoint(folder: Path, step: int, parts: Mapping[str, Stateful]) -> None:
    """Save training state as of `step` finished steps; the newest two checkpoints are kept.

    Called by all processes. A step that is saved already is left alone.
    """
    path = step_path(folder, step)
    if from_main(path.exists()):
        return
    temporary = path.with_name(f".{path.name}")
    if is_main():
        for leftover in folder.glob(".step-*"):  # of a killed process, or damaged
            remove(leftover)
        make_folder(temporary)
    barrier()
    tensors, rest = _split(parts)
    with _alone_or_together() as no_dist:
        # torch flushes its index before it has written it; `_seal` flushes everything instead.
        save(
            tensors, storage_writer=FileSystemWriter(temporary, sync_files=False), no_dist=no_dist
        )
    if is_main():
        (temporary / "state.json").write_text(json.dumps(rest, indent=1), encoding="utf-8")
    _seal(temporary)
    if is_main():
        temporary.rename(path)
        sync(folder)
        # Only now: until the new checkpoint's name is on the disk, the old ones may be needed.
        _remove_old(folder)


def load_checkpoint(folder: Path, parts: Mapping[str, Stateful]) -> int | None:
    """Load the newest whole checkpoint into `parts` and return its step; None if there is none.

    Called by all processes, of which there may be more or fewer than when it was saved. A damaged
    checkpoint is set aside, and the next older one taken: whatever the step, training from there
    ends in the same bits.

    Raises:
        ValueError: the checkpoint lacks something, or has it in another shape.
    """
    damage: list[str] = []
    while (step := from_main(max(steps(folder), default=-1))) >= 0:
        path = step_path(folder, step)
        found = [problem for problem in gather_values(_damage(path)) if problem is not None]
        if not found:
            break
        damage.append(f"checkpoint {path} is damaged ({found[0]})")
        _set_aside(path)
    if damage and is_main():
        _log.warning(_account(damage, step))
    if step < 0:
        return None
    _load(step_path(folder, step), parts)
    return step


def _load(path: Path, parts: Mapping[str, Stateful]) -> None:
    tensors, _ = _split(parts)
    try:
        with _alone_or_together() as no_dist:
            load(tensors, storage_reader=_Reader(path), no_dist=no_dist)
    except CheckpointException as error:
        causes = "; ".join(str(cause) for cause, _ in error.failures.values())
        raise ValueError(f"{path} does not fit what is trained here: {causes}") from error
    rest = json.loads((path / "state.json").read_bytes())
    for name, part in parts.items():
        part.load_state_dict(_join(name, {**tensors, **rest}))


def _seal(folder: Path) -> None:
    """Flush all files of a checkpoint, then write their sizes and hashes as its last file."""
    # Each process reads back what it wrote itself, while that is still in its memory.
    mine = [path for path in folder.iterdir() if _writer(path) == rank()]
    for path in mine:
        sync(path)
    shares = gather_values({path.name: facts_of(path) for path in mine})
    if is_main():
        index = {name: facts for share in shares for name, facts in share.items()}
        write_checked(folder / INDEX_FILE, index)


def _writer(path: Path) -> int:
    """The process that wrote a file of a checkpoint: torch calls those of tensors `__<rank>_…`."""
    match = re.match(r"__(\d+)_", path.name)
    return int(match[1]) if match else 0


def _damage(path: Path) -> str | None:
    """Describe what is wrong with this process's share of a checkpoint's files; None: nothing."""
    try:
        index: dict[str, Facts] = read_checked(path / INDEX_FILE)
        for name in sorted(index)[rank() :: world()]:
            check_file(path / name, index[name])
    except Damaged as damaged:
        return str(damaged)
    return None


def _set_aside(path: Path) -> None:
    """Free the name of a damaged checkpoint, so that its step can be saved again."""
    if is_main():
        aside = path.with_name(f".{path.name}.damaged")
        if aside.exists():
            remove(aside)
        path.rename(aside)
    barrier()


def _account(damage: Sequence[str], step: int) -> str:
    """Say what is damaged, and how training goes on from `step`; -1: from no checkpoint."""
    goes_on = f"training goes on from step {step}, an older checkpoint"
    if step < 0:
        goes_on = "no whole checkpoint is left, so training starts anew from step 0"
    return f"{'; '.join(damage)}; {goes_on}. This costs time alone: the result is the same."


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
        write_durably(folder / "model.json", lambda file: file.write_text(text, encoding="utf-8"))
        write_durably(folder / "model.safetensors", lambda file: save_file(tensors, file))


def read_description(folder: Path) -> dict[str, Any]:
    """How to build the model that was saved in a folder."""
    description: dict[str, Any] = json.loads((folder / "model.json").read_bytes())
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
    for old in list(steps(folder).values())[:-KEPT_CHECKPOINTS]:
        # Renamed first, so that no kill leaves a part of it under its name.
        remove(old.rename(old.with_name(f".{old.name}")))
