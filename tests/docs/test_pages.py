"""Paths and links of the documentation, and the tables that the site fills in from the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gigatok.commands.application import commands
from gigatok.config import TrialConfig
from tests.docs.blocks import PAGES, ROOT, generated

ROOMS = "gigatok|orchestration|analysis|dashboards|sweeps|deploy|docs|examples|tests|\\.ci"
_PATH = re.compile(rf"`((?:{ROOMS})/[\w./*-]*)`")
_LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[\w-]+)?\)|<img src=\"([^\"]+)\"")
_VARIABLE = re.compile(r"\bGIGATOK_[A-Z0-9_]+\b")
PACKAGES = ("gigatok", "orchestration", "analysis", "dashboards")
INTERNAL = {"GIGATOK_THREADS", "GIGATOK_JOB_VARIABLES", "GIGATOK_MEETING"}
"""Variables that only our own processes set for each other."""
ids = [str(page.relative_to(ROOT)) for page in PAGES]


def missing_paths(text: str) -> list[str]:
    return [path for path in dict.fromkeys(_PATH.findall(text)) if not list(ROOT.glob(path))]


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_named_paths_exist(page: Path) -> None:
    assert missing_paths(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_to_files(page: Path) -> None:
    found = _LINK.findall(page.read_text(encoding="utf-8"))
    targets = [page.parent / (link or image) for link, image in found]
    assert [target for target in targets if not target.exists()] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_every_section_of_a_trial_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "keys.md").read_text(encoding="utf-8")
    sections = {name for name in TrialConfig.model_fields if name != "seed"}
    assert set(re.findall(r"<!-- generated: keys (\w+) -->", text)) == sections


def test_generated_tables_name_keys_options_and_metrics() -> None:
    assert "`tokenizer.cnn.channels`" in generated().keys("tokenizer")
    marked = re.findall(r"`(\S+)` .*Not part of a stage's key", generated().keys("tokenizer"))
    assert "tokenizer.log_every" in marked
    assert "tokenizer.lr" not in marked
    assert "`--max-gpu-hours" in generated().commands("launch")
    assert "`signal_delay_seconds`" in generated().profile()
    assert "| `rfid` | rFID |" in generated().metrics()
    assert set(generated().schema()) >= set(
        re.findall(r"^\| `([\w.]+)`", generated().keys("tokenizer"), re.M)
    )


def test_every_command_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- generated: commands (.*) -->", text)
    assert sorted(" ".join(shown).split()) == sorted(commands())


def test_every_quirk_is_explained() -> None:
    text = (ROOT / "docs" / "reference_quirks.md").read_text(encoding="utf-8")
    quirks = {key.rpartition(".")[2] for key in generated().schema() if key.endswith("_quirk")}
    assert len(quirks) >= 5
    assert [quirk for quirk in quirks if quirk not in text] == []


def test_every_variable_is_documented() -> None:
    text = (ROOT / "docs" / "reference" / "environment.md").read_text(encoding="utf-8")
    sources = (file for room in PACKAGES for file in (ROOT / room).rglob("*.py"))
    found = {name for file in sources for name in _VARIABLE.findall(file.read_text("utf-8"))}
    assert found - INTERNAL == set(_VARIABLE.findall(text))


def test_every_page_is_filled() -> None:
    for page in PAGES:
        text = generated().on_page_markdown(page.read_text(encoding="utf-8"))
        assert generated().MARK not in text
