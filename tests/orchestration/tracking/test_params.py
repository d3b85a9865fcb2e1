"""Params of trials: what all share is on the sweep's run, and the rest is their own."""

import pytest

from gigatok.names import PARAM_SEED
from orchestration.tracking.params import own_params, shared_params

ONE = {PARAM_SEED: "0", "tokenizer": "S-S", "tokenizer.lr": "0.1", "tokenizer.steps": "10"}


def test_axes_seeds_and_names_are_never_shared():
    found = shared_params([ONE, {**ONE, PARAM_SEED: "1"}], ["tokenizer.lr"])
    assert found == {"tokenizer.steps": "10"}


def test_parts_of_an_axis_are_not_shared():
    sizes = {"tokenizer.decoder.width": "64", "tokenizer.decoder_x": "1"}
    assert shared_params([sizes], ["tokenizer.decoder"]) == {"tokenizer.decoder_x": "1"}


def test_a_sweep_without_trials_shares_nothing():
    assert shared_params([], ["tokenizer.lr"]) == {}


@pytest.mark.parametrize(
    ("trial", "own"),
    [
        ({"a": "1", "b": "2"}, {}),
        ({"a": "1", "b": "3"}, {"b": "3"}),  # a plan grew by it
        ({"a": "1", "b": "2", "c": "4"}, {"c": "4"}),
        ({"a": "1"}, {"b": "null"}),  # it must not get the one of the others
    ],
)
def test_a_trial_keeps_what_its_sweep_does_not_say(trial, own):
    assert own_params(trial, {"a": "1", "b": "2"}) == own
