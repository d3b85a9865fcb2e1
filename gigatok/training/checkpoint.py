"""Training checkpoints that survive a kill at any moment.

A checkpoint is the folder `step-<n>`, written under another name and renamed when everything in it
is on disk. Tensors are in the format of torch.distributed.checkpoint: each process writes what it
holds, so any number of processes can resume from it. All else is in `state.json`. The last file is
`index.json`, with size and hash of every other file; only files that agree with it are loaded.
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
)
from gigatok.files.unpickling import load_checkpoint_metadata
from gigatok.runtime.distributed import (
    barrier,
    from_main,
    gather_values,
    is_main,
    rank,
    world,
)

# Two: if the newest is damaged, the one before loses little time.
KEPT_CHECKPOINTS = 2
INDEX_FILE = "index.json"

_log = logging.getLogger(__name__)


class Stateful(Protocol):
    """Part of the training state: a module, an optimizer's moments, a gradient scaler.

    `state_dict` must return the live tensors, not copies, under keys without `/`. Loading first
    writes into them, and then calls `load_state_dict` with the whole state.
    """

    def state_dict(self) -> Mapping[str, Any]:
        """Return tensors and JSON values, in nested mappings."""

    def load_state_dict(self, state: dict[str, Any], /) -> object:
        """Take over a state with the same keys."""


class OptimizerState:
    """Moments of an optimizer by parameter name, whatever their order or sharding.

    The optimizer's settings are not included: they follow from the config and the step.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model = model
        self._optimizer = optimizer

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Map parameter name -> moment -> tensor."""
        state = self._optimizer.state
        return {name: dict(state[p]) for name, p in self._model.named_parameters() if p in state}

    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copy saved moments into the optimizer's."""
        for name, moments in self.state_dict().items():
            for moment, tensor in moments.items():
                # In place, into the tensors or shards that the optimizer holds.
                tensor.copy_(state[name][moment])


def save_checkpoint(folder: Path, step: int, parts: Mapping[str, Stateful]) -> None:
    """Save training state as of `step` finished steps; the newest two checkpoints are kept.

    All processes must call it. A step that is saved already is left alone.
    """
    path = step_path(folder, step)
    # Asked of the main process: on a network file system others may see the folder later.
    if from_main(path.exists()):
        return
    temporary = path.with_name(f".{path.name}")
    if is_main():
        for leftover in folder.glob(".step-*"):  # of a killed process, or damaged
            remove(leftover)
        make_folder(temporary)
    # The folder must exist before any process writes into it.
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
        # Last: until the new checkpoint's name is on the disk, the old ones may be needed.
        _remove_old(folder)


def load_checkpoint(folder: Path, parts: Mapping[str, Stateful]) -> int | None:
    """Load the newest intact checkpoint into `parts`; returns its step, or None if there is none.

    All processes must call it; there may be more or fewer than when it was saved. A damaged
    checkpoint is set aside, and the next older one is used: from any step, training ends in the
    same bits.

    Raises:
        ValueError: the checkpoint lacks something, or has it in another shape.
    """
    damage: list[str] = []
    while (step := from_main(max(steps(folder), default=-1))) >= 0:
        path = step_path(folder, step)
        # All must agree on damage that one has found, or they would load different steps.
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
            load(tensors, storage_reader=_SafeReader(path), no_dist=no_dist)
    except CheckpointException as error:
        causes = "; ".join(str(cause) for cause, _ in error.failures.values())
        raise ValueError(f"{path} does not fit what is trained here: {causes}") from error
    rest = json.loads((path / "state.json").read_bytes())
    for name, part in parts.items():
        part.load_state_dict(_join(name, {**tensors, **rest}))


def _seal(folder: Path) -> None:
    """Flush all files of a checkpoint, then write their sizes and hashes as its last file."""
    # Each process reads back its own files, which are still in its page cache.
    mine = [path for path in folder.iterdir() if _writer(path) == rank()]
    for path in mine:
        sync(path)
    shares = gather_values({path.name: facts_of(path) for path in mine})
    if is_main():
        index = {name: facts for share in shares for name, facts in share.items()}
        write_checked(folder / INDEX_FILE, index)


def _writer(path: Path) -> int:
    """Return the process that wrote a file: torch names files of tensors `__<rank>_…`."""
    match = re.match(r"__(\d+)_", path.name)
    return int(match[1]) if match else 0


def _damage(path: Path) -> str | None:
    """Describe the damage in this process's share of a checkpoint's files; None: no damage."""
    try:
        index: dict[str, Facts] = read_checked(path / INDEX_FILE)
        # Shared out: hashing a large checkpoint takes minutes in one process.
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
    """Say what is damaged, and that training continues from `step`; -1: without a checkpoint."""
    goes_on = f"training goes on from step {step}, an older checkpoint"
    if step < 0:
        goes_on = "no whole checkpoint is left, so training starts anew from step 0"
    return f"{'; '.join(damage)}; {goes_on}. This costs time alone: the result is the same."


class _SafeReader(FileSystemReader):
    """Reader of checkpoints that does not let their index run code."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Read the index: the file that holds each piece of each tensor."""
        # torch's own reader unpickles it without restrictions.
        metadata: Metadata = load_checkpoint_metadata(Path(self.path) / ".metadata")
        assert metadata.storage_meta is not None
        metadata.storage_meta.load_id = self.load_id
        return metadata


def _split(parts: Mapping[str, Stateful]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split the state of all parts into tensors and other values, both by path."""
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
        # A path begins with the name of the part that it belongs to.
        if part == name:
            branch = state
            for key in keys:
                branch = branch.setdefault(key, {})
            branch[last] = value
    return state


@contextmanager
def _alone_or_together() -> Iterator[bool]:
    """Yield `no_dist`, and silence torch's warning that it is set."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield world() == 1


def _remove_old(folder: Path) -> None:
    for old in list(steps(folder).values())[:-KEPT_CHECKPOINTS]:
        # Renamed first, so that no kill leaves a part of it under its name.
        remove(old.rename(old.with_name(f".{old.name}")))
