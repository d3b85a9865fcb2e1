"""What `import analysis` offers, as its documentation says."""

from __future__ import annotations

from pathlib import Path

import pytest

import analysis

pytestmark = pytest.mark.heavy


def test_every_name_is_there_and_documented() -> None:
    for name in analysis.__all__:
        assert getattr(analysis, name).__doc__, name


def test_trials_become_a_table_and_a_figure(uri: str, tmp_path: Path) -> None:
    runs = analysis.load("sweeps/decoder_scaling.yaml", store=uri)
    assert runs.height == 9
    assert analysis.table(runs).head[:2] == ("tokenizer", "semantic_weight")
    data = analysis.figure(runs)
    assert data.name == "decoder_scaling-micro"
    assert analysis.draw(data, venue="cvpr", column=True).get_figwidth() == 3.25
    paths = analysis.save(data, tmp_path, ["svg"])
    assert [path.suffix for path in paths] == [".svg", ".csv", ".json"]


def test_the_paper_needs_no_store() -> None:
    assert analysis.figure("figure7").name == "cure"
    assert analysis.table("table10").title == "Paper Table 10: full results"
    found = analysis.published(metric="gfid", place="Table 2", tokenizer="B-L")
    assert found["value"].to_list() == [4.82]
    assert found["citation"].str.contains("arXiv 2504.08736").all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: analysis.figure("nothing"), "no figure 'nothing'; there are"),
        (lambda: analysis.figure("cure", source="runs", store="sqlite:///no.db"), "no tracking"),
        (lambda: analysis.table("table11"), "no published table 'table11'"),
        (lambda: analysis.draw(analysis.figure("cure"), venue="icmm"), "unknown venue"),
    ],
)
def test_wrong_requests_say_what_there_is(call, said: str) -> None:
    with pytest.raises(analysis.RequestError, match=said):
        call()
