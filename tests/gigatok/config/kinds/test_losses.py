"""Extra losses in configs: keys, refusals, names, micro-batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from pydantic import ValidationError

from gigatok.config import TokenizerConfig, TransformerSize
from gigatok.config.kinds.losses import LOSSES, LossConfig, LossKind, register

SIZE = TransformerSize(width=16, layers=3, heads=1)


def tokenizer(*losses: Any, **more: Any) -> TokenizerConfig:
    training = {"encoder": SIZE, "decoder": SIZE, "steps": 1, "batch_size": 8, "lr": 1e-3}
    return TokenizerConfig.model_validate({**training, "extra_losses": losses, **more})


def test_none_leaves_keys_as_they_were() -> None:
    assert "extra_losses" not in tokenizer().identity


def test_keys_hold_what_differs_from_the_defaults() -> None:
    config = tokenizer({"name": "l1", "weight": 0.5}, {"name": "focal_frequency", "alpha": 1})
    written = '"extra_losses":[{"name":"l1","weight":0.5},{"name":"focal_frequency"}]'
    assert written in config.identity
    assert TokenizerConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("losses", "text"),
    [
        ([{"name": "l2"}], "name must be one of l1, focal_frequency; got 'l2'"),
        ([{"weight": 1}], "got None"),
        ([{"name": "l1", "weight": 0}], "greater than 0"),
        ([{"name": "l1", "alpha": 1}], "Extra inputs are not permitted"),
        ([{"name": "l1"}, {"name": "l1", "weight": 2}], "extra_losses makes two losses 'l1'"),
    ],
)
def test_wrong_losses_are_refused(losses: list[Any], text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        tokenizer(*losses)
    assert text in str(caught.value)


class SpreadConfig(LossConfig):
    """Loss of somebody else."""

    name: Literal["spread"]


class CommitmentConfig(LossConfig):
    """Loss with the name of a term of the quantizer."""

    name: Literal["commitment"]


@pytest.fixture
def outside() -> Iterator[None]:
    """Two losses of somebody else."""
    register(LossKind(SpreadConfig, "my_lab.losses:Spread", over_batch=True))
    register(LossKind(CommitmentConfig, "my_lab.losses:Commitment"))
    yield
    del LOSSES["spread"], LOSSES["commitment"]


def test_a_loss_over_the_batch_forbids_micro_batches(outside: None) -> None:
    assert tokenizer({"name": "l1"}, micro_batch=2).needs_whole_batch is None
    with pytest.raises(ValidationError, match="extra loss spread does not go with micro_batch"):
        tokenizer({"name": "spread"}, micro_batch=2)


def test_each_loss_has_a_curve_of_its_own(outside: None) -> None:
    with pytest.raises(ValidationError, match="makes two losses 'commitment'"):
        tokenizer({"name": "commitment"})
    # This quantizer has no such term.
    fsq = {"name": "fsq", "levels": [3]}
    assert tokenizer({"name": "commitment"}, quantizer=fsq)


@pytest.mark.parametrize("name", ["l1", "reconstruction", "perceptual"])
def test_names_are_given_once(name: str) -> None:
    # As a class statement would make it, with the name of the parameter.
    named = {"name": Literal[name]}  # type: ignore[valid-type]
    config = type("TakenConfig", (LossConfig,), {"__annotations__": named})
    with pytest.raises(ValueError, match=f"'{name}' already; choose another name"):
        register(LossKind(config, "my_lab.losses:Taken"))
