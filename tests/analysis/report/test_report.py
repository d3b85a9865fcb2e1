"""The report of a sweep: complete in itself, and no more sure than its data."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analysis.__main__ import app

pytestmark = pytest.mark.heavy
SECTIONS = [
    "Answer",
    "Figures",
    "Claims",
    "Plan",
    "What ran",
    "Results",
    "What the data show",
    "Scaling fits",
    "Rate and distortion",
    "Complexity of the latents",
    "What else differs",
    "Cost",
    "Predicted cost",
    "Provenance",
]


class Page(HTMLParser):
    """Collects what a page refers to and which tags it leaves open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.sources += [v for k in ("src", "href") if (v := named.get(k)) is not None]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def made(uri: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    command = ["report", "decoder_scaling", "--tracking-uri", uri, "--out", str(out)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    return out


def test_the_page_needs_no_other_file(made: Path) -> None:
    page = Page((made / "decoder_scaling-micro.html").read_text())
    assert page.open == []
    assert page.sources
    assert all(source.startswith(("#", "data:image/png;base64,")) for source in page.sources)
    assert sum(source.startswith("data:") for source in page.sources) == 2


def test_both_pages_have_every_section(made: Path) -> None:
    text = (made / "decoder_scaling-micro.md").read_text()
    assert re.findall("^## (.*)$", text, re.MULTILINE) == SECTIONS
    page = (made / "decoder_scaling-micro.html").read_text()
    assert re.findall("<h2[^>]*>(.*?)</h2>", page) == SECTIONS
    for name in re.findall(r"\]\((.*?\.png)\)", text):
        assert (made / name).exists()


def test_what_it_says_is_what_the_tests_say(made: Path) -> None:
    text = (made / "decoder_scaling-micro.md").read_text()
    assert text.startswith("# At a fixed encoder, what does a larger decoder buy?\n\n")
    first = text[text.index("## Answer") : text.index("## Claims")]
    assert re.search(r"(\d+ of \d+|any of \d+) comparisons", first), "the answer is read first"
    assert "](decoder_scaling-micro.png)" in first, "and its figure stands below it"
    assert "Trials: 9 COMPLETE." in text
    assert re.search(
        r"\| S-B tokenizer.semantic_weight=0.0 seed=0 \| rKID, .*gKID.* \| null \|", text
    )
    assert "Nothing was claimed beforehand" in text
    assert "an effect is shown (q = " in text
    assert "| 0.500 (≥ 0.500) |" in text, "two seeds cannot reach a smaller p"
    assert "PSNR over params at inference, y = a (x / x0)^b" in text
    assert "over params at inference (+reg)" not in text, "with it only S-S and S-L ran"
    assert re.search(r"\d+ comparisons, \d+ interactions.* tested together, \d+ shown", text)
    assert re.search(r"\| interaction \| PSNR .*S-S → S-L × semantic_weight 0 → 0.5 \|", text)
    assert re.search(r"\d+ correlations were looked at together", text)
    assert "Settings have different numbers of complete seeds" in text
    assert "c0ffee" in text


def test_a_sweep_with_failures_reports_them(uri: str, tmp_path: Path) -> None:
    command = ["report", "tokenizer_scaling", "--tracking-uri", uri, "--out", str(tmp_path)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "tokenizer_scaling-micro.md").read_text()
    assert "2 COMPLETE, 1 FAILED" in text
    assert "S-L seed=0: train_tokenizer: out of memory" in text
    assert re.search(r"\| S-B seed=0 \| AR val loss \| NaN \|", text)


def test_a_sweep_without_results_is_refused(uri: str, tmp_path: Path) -> None:
    command = ["report", "semantic_layer", "--tracking-uri", uri, "--out", str(tmp_path)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "no finished trial in 'semantic_layer': 1 FAILED, 1 WAITING" in done.output
