"""First wait for the device of a stage that trains, and where in the project it is.

On the meta device, which needs no GPU, tensors have no values: what reads one raises, and copies
from the CPU are looked at by name. On a GPU torch itself raises.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import gigatok
from gigatok.runtime.context import Runtime

PROJECT = Path(gigatok.__file__).parent
COPIES = ("aten::_to_copy", "aten::copy_")
CONSTANTS = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
"""Make a tensor on the CPU and copy it to the device, out of sight of a dispatch mode."""


class NoConstants(TorchFunctionMode):
    """Mode in which Python values that become a tensor on a device raise, once it is armed."""

    armed = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.armed and func in CONSTANTS and out.device.type != "cpu":
            raise RuntimeError(f"a blocking copy of {args[-1]} to {out.device}")
        return out


class NoBlockingCopies(TorchDispatchMode):
    """Mode in which a copy between devices that the CPU waits for raises, once it is armed."""

    armed = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if self.armed and func._schema.name in COPIES:
            source = args[0] if func._schema.name == COPIES[0] else args[1]
            free = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
            if source.device != out.device and not free:
                raise RuntimeError(f"a blocking copy from {source.device} to {out.device}")
        return out


def first_wait(run: Callable[[Runtime], object], folder: Path, device: str) -> list[str]:
    """Run a stage until it waits for the device, from its first step on.

    Returns:
        Names of the project's functions that wait, from the outermost; empty: it never waits.
    """
    copies, constants = NoBlockingCopies(), NoConstants()

    def arm() -> bool:
        # Asked before each step: all that comes before the first may wait.
        copies.armed = constants.armed = True
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("error")
        return False

    try:
        with copies, constants:
            run(Runtime(folder / "checkpoints", device, should_stop=arm))
    except (RuntimeError, NotImplementedError) as error:
        if not copies.armed:
            raise
        frames = traceback.extract_tb(error.__traceback__)
        ours = (frame for frame in frames if frame.filename.startswith(str(PROJECT)))
        return [frame.name for frame in ours]
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    return []
