"""Predicted against actual: what a launch expected of its stages, and what they took."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from gigatok.stages import STAGES
from orchestration.costs.amounts import bytes_text, seconds_text
from orchestration.costs.calibration import observe
from orchestration.runs.state import StageFolder

MOST_COMPARED = 300
"""Complete stages whose records `status` reads."""
BUSY = 0.05
"""Share of time waited for others from which it is said."""
CLOSE = 0.25
"""Relative error of a time up to which a prediction is called close."""


@dataclass(frozen=True)
class Comparison:
    """One stage that ran in one go.

    Attributes:
        actual: seconds from the worker's start to its end.
        waited: of them, for a processor that others had; None: not counted.
        predicted: seconds; None: it was launched uncalibrated.
        predicted_memory: bytes; None: not known at launch.
        actual_memory: the same; None: not measured.
        record: what the predicted time rested on.
    """

    stage: str
    key: str
    readable: str
    predicted: float | None
    low: float | None
    high: float | None
    actual: float
    waited: float | None
    predicted_memory: int | None
    actual_memory: int | None
    record: str | None

    @property
    def ratio(self) -> float | None:
        """Predicted over actual seconds, what it waited for others left out."""
        own = self.actual - (self.waited or 0.0)
        return None if self.predicted is None else self.predicted / max(own, 1e-3)


def compare(folder: StageFolder) -> Comparison | None:
    """A complete stage; None where it says nothing: resumed, adopted results, older code."""
    attempts, spec = folder.attempts(), folder.known_spec()
    if not attempts or spec is None or spec.prediction is None:
        return None
    found = observe(spec, attempts[-1])
    if found is None:
        return None
    expected = spec.prediction
    return Comparison(
        stage=spec.stage,
        key=spec.key,
        readable=spec.readable,
        predicted=expected.seconds,
        low=expected.low,
        high=expected.high,
        actual=found.seconds + (found.waited_seconds or 0.0),
        waited=found.waited_seconds,
        predicted_memory=expected.memory_bytes,
        actual_memory=found.peak_memory_bytes,
        record=expected.record,
    )


def compare_all(folders: Iterable[StageFolder]) -> list[Comparison]:
    """Of the first complete stages, those that ran in one go."""
    found = (compare(folder) for folder in itertools.islice(folders, MOST_COMPARED))
    return [one for one in found if one is not None]


def accuracy_line(found: Sequence[Comparison]) -> str:
    """How good the predictions were, in a sentence."""
    ratios = [one.ratio for one in found if one.ratio is not None]
    if not ratios:
        return f"{len(found)} stages ran uncalibrated: no time was predicted"
    close = sum(abs(ratio - 1) <= CLOSE for ratio in ratios)
    text = f"predicted against actual: {close} of {len(ratios)} times within {CLOSE:.0%}"
    without = len(found) - len(ratios)
    text += f", {without} stages ran uncalibrated" if without else ""
    waited, actual = sum(one.waited or 0.0 for one in found), sum(one.actual for one in found)
    if waited > BUSY * actual:
        text += f"; without {waited / actual:.0%} of the time, when others had the processor"
    return text


def accuracy_table(found: Sequence[Comparison]) -> Table:
    """One row per kind of stage, with the worst of its stages."""
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for head in ("runs", "predicted", "actual", "ratio", "worst", "memory", "actual"):
        table.add_column(head, justify="right")
    for stage in STAGES:
        mine = [one for one in found if one.stage == stage]
        timed = [one for one in mine if one.ratio is not None]
        if not mine:
            continue
        predicted = sum(one.predicted or 0.0 for one in timed)
        actual = sum(one.actual - (one.waited or 0.0) for one in timed or mine)
        worst = max((one.ratio or 1.0 for one in timed), key=lambda r: max(r, 1 / r), default=None)
        table.add_row(
            STAGES[stage].label,
            str(len(mine)),
            seconds_text(predicted if timed else None),
            seconds_text(actual),
            f"{predicted / actual:.2f}" if timed else "–",
            "–" if worst is None else f"{worst:.2f}",
            bytes_text(
                max((o.predicted_memory for o in mine if o.predicted_memory), default=None)
            ),
            bytes_text(max((o.actual_memory for o in mine if o.actual_memory), default=None)),
        )
    return table


def accuracy_json(one: Comparison) -> dict[str, Any]:
    """A comparison as data; what is not known is null."""
    return {**asdict(one), "ratio": one.ratio}
