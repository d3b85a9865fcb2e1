"""Which trials conditions keep, and what an error says."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
import pytest

from analysis.store.requests import RequestError
from analysis.store.selecting import matching

TRIALS = pl.DataFrame(
    {
        "trial": ["a", "b", "c", "d"],
        "tokenizer.encoder": ["S", "S", "B", None],
        "tokenizer.lr": [1e-4, 5e-4, 1e-4, 1e-4],
        "tokenizer.adaptive": [True, False, True, True],
        "derived.ratio": [0.5, 1.0, 2.0, None],
        "generator.lr": [0.1, 0.1, 0.2, 0.1],
    }
)


@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        ([], "abcd"),
        (["tokenizer.encoder=S"], "ab"),
        (["encoder=S, B"], "abc"),
        (["encoder=none"], "d"),
        (["tokenizer.lr=0.0001"], "acd"),
        (["tokenizer.lr=1e-4", "encoder=S"], "a"),
        (["adaptive=true"], "acd"),
        (["derived.ratio=2"], "c"),
    ],
)
def test_conditions_keep_the_trials_that_meet_all(conditions: Sequence[str], kept: str) -> None:
    assert "".join(matching(TRIALS, conditions)["trial"]) == kept


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("encoder", ("give KEY=VALUE", "VALUE,VALUE")),
        ("tokenizer.encodr=S", ("did you mean 'tokenizer.encoder'?",)),
        # Two keys end so.
        ("lr=1", ("there are", "tokenizer.lr", "generator.lr")),
        ("encoder=XL", ("no trial", "tokenizer.encoder is S, B, none")),
    ],
)
def test_a_condition_that_keeps_nothing_says_what_there_is(
    condition: str, words: Sequence[str]
) -> None:
    with pytest.raises(RequestError) as error:
        matching(TRIALS, [condition])
    for word in ("--where", *words):
        assert word in str(error.value)
