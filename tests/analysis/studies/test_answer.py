"""The answer of a study: verdicts, the clearest comparisons, or the best of a search."""

from __future__ import annotations

import json

import pytest

from analysis.claims.judged import judge
from analysis.store.requests import RequestError
from analysis.store.runs import load_runs, measured, scored
from analysis.studies.answer import answer
from gigatok.names import CLAIMS_FILE
from tests.analysis.conftest import Store


@pytest.mark.heavy
def test_verdicts_come_before_comparisons(empty_store: Store) -> None:
    sweep = empty_store.sweep("sizes", "aaaa1111", 1.0)
    for tokenizer, values in {"S-S": (10.0, 10.1, 10.2), "S-L": (12.0, 12.1, 12.3)}.items():
        for seed, psnr in enumerate(values):
            empty_store.trial("sizes", sweep, tokenizer, {"psnr": psnr}, seed=seed)
    arms = [[{"setting": "S-S"}, {"setting": "S-L"}]]
    claim = {"text": "psnr of L and S", "metric": "psnr", "families": arms}
    same = {**claim, "name": "same", "kind": "equivalence", "margin": 0.1}
    higher = {**claim, "name": "higher", "kind": "difference"}
    lost = {**higher, "name": "lost", "metric": "lpips"}
    facts = {"at": 0.0, "results": 0, "looks": None, "identity": ""}
    made = [{"claim": c, **facts} for c in (lost, higher, same)]
    empty_store.client.log_text(sweep, json.dumps(made), CLAIMS_FILE)
    found = answer(load_runs("sizes", empty_store.uri), empty_store.uri)
    assert found.headline == "3 claims: 1 contradicted, 1 supported, 1 undecided."
    assert [line.partition(",")[0] for line in found.sentences] == [
        "same: contradicted",
        "higher: supported",
        "lost: undecided",
    ]
    assert found.metric == "psnr"
    del made[1]["looks"]
    empty_store.client.log_text(sweep, json.dumps(made), CLAIMS_FILE)
    wrong = rf"claims.json of MLflow run {sweep} cannot be read: 1.looks: Field required; .* sync"
    with pytest.raises(RequestError, match=wrong):
        judge(load_runs("sizes", empty_store.uri), empty_store.uri)


def test_the_clearest_comparison_comes_first(uri: str) -> None:
    found = answer(load_runs("decoder_scaling", uri), uri)
    assert found.headline.endswith(" comparisons show an effect.")
    assert found.metric == "psnr"
    assert found.sentences[0].startswith("PSNR, S-S → S-L: +0.20 and +0.20 dB")
    assert len(found.sentences) == 3


def test_single_seeds_answer_with_their_reserve(uri: str) -> None:
    found = answer(load_runs("tokenizer_scaling", uri), uri)
    assert found.headline == "One seed for each setting: no effect can be told from chance."
    assert len(found.sentences) == 2


def test_without_a_result_there_is_no_answer(uri: str) -> None:
    found = answer(load_runs("semantic_layer", uri), uri)
    assert (found.headline, found.sentences, found.metric) == ("No result yet.", (), None)


@pytest.mark.parametrize(
    ("objectives", "best", "headline"),
    [
        (
            {"psnr": "maximize"},
            1,
            "Best of 3 trials of the sampler tpe: lr=0.01: PSNR (dB) 12.00.",
        ),
        (
            {"psnr": "maximize", "lpips": "minimize"},
            2,
            "2 of 3 trials of the sampler tpe are beaten by no other.",
        ),
        ({"psnr": "maximize"}, 0, "No trial of the search is complete yet, of 3."),
    ],
)
def test_a_search_answers_with_its_best(
    uri: str, objectives: dict[str, str], best: int, headline: str
) -> None:
    values = {"psnr": 12.0, "lpips": 0.3}
    trial = {
        "state": "COMPLETE",
        "params": {"lr": 0.01},
        "values": {k: values[k] for k in objectives},
    }
    running = {**trial, "state": "RUNNING", "values": None}
    study = {"sampler": "tpe", "objectives": objectives, "trials": [trial] * 3 + [running]}
    search = {"studies": [{**study, "best": [trial] * best}]}
    assert answer(load_runs("semantic_layer", uri), uri, search).headline == headline


@pytest.mark.heavy
def test_parameters_alone_are_no_result(empty_store: Store) -> None:
    """A network's size is known when its training ends, before any score."""
    run = empty_store.sweep("begun", "abcd1234", 1.0)
    empty_store.trial("begun", run, "S-S", {"params_total": 1e6, "params_tokenizer": 1e6})
    runs = load_runs("begun", empty_store.uri)
    assert measured(runs) == ["params_tokenizer", "params_total"]
    assert scored(runs) == []
    assert answer(runs, empty_store.uri).headline == "No result yet."
