"""What the doctor says of plug-ins: installed ones, those of a sweep, and broken ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gigatok import plugins
from orchestration.backends.base import Finding
from orchestration.commands.upkeep.doctor import plug_ins
from tests.restoring import restored_registries

METRIC = """
from gigatok.names import Metric, register

register(Metric({name!r}, "heading", "%", "higher", 1))
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of an installed distribution with two plug-ins, one of which is broken."""
    monkeypatch.setattr(plugins, "LOADED", {})
    (tmp_path / "lab_metrics.py").write_text(METRIC.format(name="gloss"))
    (tmp_path / "lab_broken.py").write_text("import there_is_no_such_module\n")
    metadata = tmp_path / "lab-3.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: lab\nVersion: 3\n")
    (metadata / "top_level.txt").write_text("lab_metrics\nlab_broken\n")
    points = "[gigatok.plugins]\nfirst = lab_metrics\nsecond = lab_broken\n"
    (metadata / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(tmp_path)
    plugins.installed.cache_clear()
    with restored_registries():
        yield tmp_path
    plugins.installed.cache_clear()


def found(sweep: str | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in plug_ins(sweep)}


@pytest.mark.heavy
def test_installed_plugins_are_listed_and_broken_ones_explained(place: Path) -> None:
    said = found()
    assert said["plug-in lab_metrics"].level == "ok"
    assert said["plug-in lab_metrics"].text == "lab 3 registers metric gloss"
    assert said["plug-in lab_broken"].level == "warning"
    assert "there_is_no_such_module" in said["plug-in lab_broken"].text


@pytest.mark.heavy
def test_those_of_a_sweep_are_listed_as_well(place: Path) -> None:
    (place / "shine.py").write_text(METRIC.format(name="shine"))
    sweep = place / "mine.yaml"
    text = "question: q\nscale: smoke\nset: {tokenizer.encoder: S, tokenizer.decoder: S}\n"
    sweep.write_text(f"{text}plugins: [./shine.py]\n")
    said = found(str(sweep))["plug-in ./shine.py"]
    assert said.text.startswith("sha256:")
    assert said.text.endswith(" registers metric shine")
    sweep.write_text(f"{text}plugins: [./gone.py]\n")
    missing = found(str(sweep))[f"sweep {sweep}"]
    assert missing.level == "missing"
    assert "gone.py" in missing.text
