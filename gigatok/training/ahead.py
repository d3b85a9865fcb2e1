"""Values of the next step, computed in a thread while this step runs."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Computation of the next step's value in a thread while this step's is used.

    Args:
        compute: a pure function of a step and a part of its batch.
    """

    def __init__(self, compute: Callable[[int, slice], T]) -> None:
        self._compute = compute
        # One thread is enough: decoding itself is spread over all cores.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._pending: dict[tuple[int, int, int], Future[T]] = {}

    def get(self, step: int, part: slice) -> T:
        """Return `compute(step, part)`, and begin the same part of the next step."""
        pending = self._pending.pop((step, part.start, part.stop), None)
        # After a resume or a stop, values of other steps may be left; none is used twice.
        self._pending = {key: value for key, value in self._pending.items() if key[0] >= step}
        value = self._compute(step, part) if pending is None else pending.result()
        # A guess, which is right unless training stops: micro-batches are the same in every step.
        following = self._pool.submit(self._compute, step + 1, part)
        self._pending[step + 1, part.start, part.stop] = following
        return value
