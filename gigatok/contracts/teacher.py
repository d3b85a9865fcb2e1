"""Contract of a semantic teacher: what tokenizer, cache of features and costs rely on.

B batch, T cells of the grid, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gigatok.config.teachers import TeacherKind, teacher_cost
from gigatok.models.frozen.teachers import Teacher, build_teacher

BATCH, SIDE = 3, 48
"""Images that are shown; their side is that of no teacher."""
TOLERANCE = 1e-3
"""Largest difference of features, in parts of their standard deviation, that rounding explains."""
Check = Callable[[TeacherKind], Iterator[str]]
"""Function that yields a sentence for each part of the contract that a teacher breaks."""


def broken_promises(kind: TeacherKind) -> list[str]:
    """List what a teacher does that it must not; empty: it keeps the contract.

    A check that raises is a broken promise as well.
    """
    return [f"teacher {kind.name}: {text}" for check in CHECKS for text in _results(check, kind)]


def _results(check: Check, kind: TeacherKind) -> Iterator[str]:
    try:
        yield from check(kind)
    # Whatever it is, the other checks still say something.
    except Exception as error:
        yield f"{check.__name__}: {type(error).__name__}: {error}"


def built(kind: TeacherKind) -> Teacher:
    """Build the teacher, or the example of a family.

    Raises:
        ValueError: a family gives no example.
    """
    if kind.family and not kind.example:
        raise ValueError(f"a family has to give an example; there is no {kind.form}")
    return build_teacher(kind.example or kind.name)
