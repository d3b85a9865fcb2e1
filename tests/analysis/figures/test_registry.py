"""A figure from outside the repository enters through the door of the built-in ones."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import analysis
from analysis.__main__ import app
from analysis.figures.parts.registry import FIGURES, published

pytestmark = pytest.mark.heavy
MODULE = """
from analysis.charts.grammar import Chart, FigureData, Mark, Series, axis
from analysis.charts.style import WITH
from analysis.figures.parts.registry import published
from analysis.figures.runs import Panel, RunFigure, declare

declare(
    RunFigure(
        "mine", "Does the loss go with the score?", ("decoder_scaling",),
        (Panel("ar_val_loss", "psnr", "Mine"),),
    )
)


@published("mine", paper="figure99")
def mine():
    mark = Mark(8.0, 20.0, ({"id": "me/table-1/01"},), "printed", "S-S")
    chart = Chart("Mine", axis("ar_val_loss"), axis("psnr"), (Series("me", (mark,), WITH),))
    return FigureData("mine", "My numbers", "published", (chart,))
"""


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[None]:
    """A module somewhere else, imported as a user's would be."""
    file = tmp_path / "my_figures.py"
    file.write_text(MODULE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("my_figures", file)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    yield
    del FIGURES["mine"]


def test_a_figure_of_a_user_has_everything_that_built_in_ones_have(
    outside: None, uri: str, tmp_path: Path
) -> None:
    of_paper = analysis.figure("Figure 99")
    assert of_paper.title == "My numbers"
    of_runs = analysis.figure("mine", source="runs", store=uri, scale="micro")
    assert {m.label for m in of_runs.charts[0].marks} == {"S-S", "S-B", "S-L"}
    arguments = ["figures", "mine", "--source", "both", "--scale", "micro", "--format", "png"]
    done = CliRunner().invoke(app, [*arguments, "--tracking-uri", uri, "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "mine-both.json").read_text(encoding="utf-8"))
    assert "me/table-1/01" in record["sources"]
    assert {number["reading"] for number in record["numbers"]} == {"printed", "run"}
    assert "mine" in CliRunner().invoke(app, ["figures", "--list"]).output


def test_a_name_is_taken_once(outside: None) -> None:
    with pytest.raises(ValueError, match="two figures 'mine' of published numbers"):
        published("mine")(lambda: analysis.figure("cure"))
