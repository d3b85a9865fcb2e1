"""How a metric is printed decides axes, scales and directions; drawing follows the data."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from analysis.charts.drawing import draw_chart
from analysis.charts.grammar import Bar, Chart, Mark, Series, axis
from analysis.charts.style import WITH
from gigatok.names import METRICS, QUANTITIES, quantity, steadier


def chart(x: str, y: str, *places: tuple[float, float], better_up: bool = False) -> Chart:
    marks = tuple(
        Mark(a, b, (), "run", y_bar=Bar(b * 0.9, b * 1.1, "student_t")) for a, b in places
    )
    return Chart("", axis(x), axis(y), (Series("one", marks, WITH),), better_up)


@pytest.mark.parametrize(
    ("key", "heading", "value", "text"),
    [
        ("params_tokenizer", "params at inference (M)", 51.93e6, "51.9"),
        ("bits_per_image", "bits/image (bits)", 288.0, "288"),
        ("probe_accuracy", "probe acc. (%) ↑", 0.308, "30.8"),
        ("rkid", "rKID (x1000) ↓", 45.3, "45.3"),
        ("ar_val_loss", "AR val loss (nats/token) ↓", 3.98, "3.980"),
        ("train/codebook_usage", "codebook usage (%) ↑", 0.5, "50.0"),
        ("generator.dropout", "generator.dropout", 0.1, "0.100"),
    ],
)
def test_one_rule_prints_a_quantity(key: str, heading: str, value: float, text: str) -> None:
    assert axis(key).label == quantity(key).heading == heading
    assert quantity(key).text(value) == text


def test_an_axis_is_logarithmic_by_the_rule_of_its_metric() -> None:
    assert chart("params_total", "psnr", (1.0, 18.0), (2.0, 19.0)).log_x, "a size always"
    assert not chart("params_total", "psnr", (1.0, 18.0), (2.0, 19.0)).log_y
    assert chart("rfid", "gfid", (1.0, 2.0), (3.0, 20.0)).log_y, "ten times"
    assert not chart("rfid", "gfid", (1.0, 2.0), (3.0, 19.0)).log_y
    assert not chart("rfid", "gfid", (0.0, 2.0), (3.0, 2.0)).log_x, "zero has no logarithm"
    assert not chart("step", "codebook_usage", (1.0, 1.0), (1000.0, 100.0)).log_y


def test_better_is_up_and_right_in_a_plane_and_says_so() -> None:
    plane = chart("rfid", "psnr", (1.0, 18.0), (2.0, 19.0), better_up=True)
    axes = draw_chart(Figure().subplots(), plane)
    assert axes.xaxis_inverted()
    assert not axes.yaxis_inverted()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("rFID, better →", "PSNR (dB), better →")


def test_kid_is_preferred_to_fid_but_never_mixed_with_it() -> None:
    assert steadier(("rfid", "gfid"), {"rkid", "gkid", "rfid"}) == ("rkid", "gkid")
    assert steadier(("rfid", "gfid"), {"rkid", "rfid", "gfid"}) == ("rfid", "gfid")
    assert steadier(("params_total", "gfid"), {"gkid"}) == ("params_total", "gkid")


def test_every_metric_is_a_quantity() -> None:
    assert METRICS.items() <= QUANTITIES.items()
