"""The built-in metrics keep the contract, and it tells what is wrong with a description."""

from __future__ import annotations

import pytest

from gigatok.contracts.metric import broken_promises
from gigatok.names import METRICS, Metric


def test_the_built_in_metrics_keep_it() -> None:
    assert [text for metric in METRICS.values() for text in broken_promises(metric)] == []


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        (Metric("My score", "score"), "its name is 'My score'"),
        (Metric("step", "score"), "its name is that of an axis of figures"),
        (Metric("score", " "), "its label is empty"),
        (Metric("score", "x" * 70), "its heading has 70 characters"),
        (Metric("score", "rFID", "", "lower"), "its heading 'rFID ↓' is also that of rfid"),
        (Metric("score", "score", better="up"), "better is 'up'"),  # type: ignore[arg-type]
        (Metric("score", "score", column="no"), "column is 'no'"),  # type: ignore[arg-type]
        (Metric("score", "score", digits=-1), "digits is -1"),
        (Metric("score", "score", factor=0.0, printed_unit="%"), "factor is 0.0"),
        (Metric("score", "score", factor=100.0), "factor and printed_unit belong together"),
        (Metric("score", "score", standard_error="score_se"), "score_se is not registered"),
        (Metric("score", "score", standard_error="rkid_se"), "error is in 'x1000'"),
    ],
)
def test_what_is_wrong_is_said(metric: Metric, text: str) -> None:
    found = broken_promises(metric)
    assert any(text in line for line in found), found
    assert all(line.startswith(f"metric {metric.name}: ") for line in found)
