"""Accuracy of predictions: what a launch expected of its stages, against what they took."""

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

# Each needs several small files, and `status` is to answer at once on a network file system.
MOST_COMPARED = 300
"""Complete stages whose records `status` reads."""
BUSY = 0.05
"""Share of time spent waiting for a busy processor from which it is mentioned."""
CLOSE = 0.25
"""Relative error of a time up to which a prediction is called close."""


@dataclass(frozen=True)
class PredictionCheck:
    """Prediction and measurement of one stage that ran in one go.

    Attributes:
        actual: seconds from the worker's start to its end.
        waited: seconds of these without a free processor; None: not counted.
        predicted: predicted seconds; None: the stage was launched uncalibrated.
        predicted_memory: predicted bytes; None: not known at launch.
        actual_memory: measured bytes; None: not measured.
        record: the measurement that the prediction rests on.
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
        """Predicted over actual seconds, without the time that it waited for a processor."""
        own = self.actual - (self.waited or 0.0)
        return None if self.predicted is None else self.predicted / max(own, 1e-3)


def compare(folder: StageFolder) -> PredictionCheck | None:
    """Compare a complete stage; None if it was resumed, adopted, or run by older code."""
    # Stages of earlier code have no prediction in their spec.
    attempts, spec = folder.attempts(), folder.known_spec()
    if not attempts or spec is None or spec.prediction is None:
        return None
    found = observe(spec, attempts[-1])
    if found is None:
        return None
    expected = spec.prediction
    return PredictionCheck(
        stage=spec.stage,
        key=spec.key,
        readable=spec.readable,
        predicted=expected.seconds,
        low=expected.low,
        high=expected.high,
        # Observations leave the waiting out; the user's clock did not.
        actual=found.seconds + (found.waited_seconds or 0.0),
        waited=found.waited_seconds,
        predicted_memory=expected.memory_bytes,
        actual_memory=found.peak_memory_bytes,
        record=expected.record,
    )


def compare_all(folders: Iterable[StageFolder]) -> list[PredictionCheck]:
    """Compare the first complete stages, as far as each ran in one go."""
    found = (compare(folder) for folder in itertools.islice(folders, MOST_COMPARED))
    return [one for one in found if one is not None]


def accuracy_line(found: Sequence[PredictionCheck]) -> str:
    """Summarise in a sentence how good the predictions were."""
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


def accuracy_table(found: Sequence[PredictionCheck]) -> Table:
    """Build a table with one row per kind of stage, and the worst of its stages."""
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
        # Against the same stages as `predicted`, so that the quotient compares like with like.
        actual = sum(one.actual - (one.waited or 0.0) for one in timed or mine)
        # Twice too long and twice too short are equally bad.
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


def accuracy_json(one: PredictionCheck) -> dict[str, Any]:
    """Convert a comparison to data; an unknown value is null."""
    return {**asdict(one), "ratio": one.ratio}
