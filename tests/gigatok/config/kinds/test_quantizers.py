"""Quantizers as settings: shapes, keys, names, and the door for those from outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import pytest
from pydantic import ValidationError

from gigatok.config import CodeShape, TokenizerArchitecture, TokenizerConfig, TransformerSize
from gigatok.config.fields.identity import identity_fields
from gigatok.config.kinds.quantizers import (
    COMMON,
    QUANTIZERS,
    CodebookConfig,
    QuantizerConfig,
    QuantizerKind,
    register,
)

SIZE = TransformerSize(width=8, layers=3, heads=1)


def architecture(quantizer: Any = None, **values: Any) -> TokenizerArchitecture:
    given = {} if quantizer is None else {"quantizer": quantizer}
    return TokenizerArchitecture(encoder=SIZE, decoder=SIZE, **given, **values)


SHAPES = {
    "vq": ({"name": "vq"}, CodeShape(16384, 8), 256 * 14, "vq"),
    "fsq": ({"name": "fsq", "levels": [8, 8, 8]}, CodeShape(512, 3), 256 * 9, "fsq-8x8x8"),
    "lfq": ({"name": "lfq", "bits": 18}, CodeShape(2**18, 18), 256 * 18, "lfq-18"),
    "bsq": (
        {"name": "bsq", "bits": 9, "entropy_weight": 0},
        CodeShape(512, 9),
        256 * 9,
        "bsq-9-entropy_weight=0",
    ),
    "rvq": ({"name": "rvq", "depth": 3}, CodeShape(16384, 8, 3), 256 * 3 * 14, "rvq-3"),
}


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_bits_and_name(name: str) -> None:
    written, shape, bits, label = SHAPES[name]
    config = architecture(written)
    assert config.code_shape == shape
    assert config.vocabulary == shape.vocabulary
    assert config.sequence_length(256) == 256 * shape.depth
    assert config.bits_per_image(256) == bits
    assert config.quantizer.label == label


def test_bits_of_levels_that_are_no_power_of_two() -> None:
    config = architecture({"name": "fsq", "levels": [8, 5, 5, 5]}, num_latent_tokens=1)
    assert config.bits_per_image(256) == pytest.approx(9.9658, abs=1e-4)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_settings_that_a_quantizer_does_not_read_change_no_key(name: str) -> None:
    others: dict[str, Any] = {
        "codebook_size": 77,
        "codebook_dim": 5,
        "rotation_trick": False,
        "commitment_weight": 0.7,
        "entropy_weight": 0.3,
        "entropy_temperature": 0.5,
        "codebook_init": "data",
        "dead_code_restart_every": 9,
        "usage_window": 7,
    }
    assert others.keys() == CodebookConfig.model_fields.keys()
    written = SHAPES[name][0]
    before = architecture(written).identity
    for key, value in others.items():
        read = key in QUANTIZERS[name].config.reads
        assert (architecture(written, **{key: value}).identity != before) == read, key


def test_the_published_quantizer_is_the_default_and_in_no_key() -> None:
    assert architecture().identity == architecture({"name": "vq"}).identity
    assert "quantizer" not in architecture().identity


def test_kinds_of_equal_settings_have_keys_of_their_own() -> None:
    keys = {architecture({"name": name, "bits": 9}).identity for name in ("lfq", "bsq")}
    assert len(keys) == 2


DEFAULTS = {
    "vq": {},
    "fsq": {},
    "lfq": {"commitment_weight": "0.25", "entropy_temperature": "0.01", "entropy_weight": "0.1"},
    "bsq": {"commitment_weight": "0.25", "entropy_temperature": "0.01", "entropy_weight": "0.1"},
    "rvq": {},
}
"""Pinned: keys leave defaults out, so another one needs a higher version of train_tokenizer."""


@pytest.mark.parametrize("name", QUANTIZERS)
def test_defaults_are_pinned(name: str) -> None:
    fields = identity_fields(QUANTIZERS[name].config)
    assert {f.name: f.default for f in fields if f.default is not None} == DEFAULTS[name]


@pytest.mark.parametrize(
    ("quantizer", "text"),
    [
        ({"name": "fqs"}, "name must be one of vq, fsq, lfq, bsq, rvq; got 'fqs'"),
        ({"levels": [8]}, "name must be one of vq, fsq, lfq, bsq, rvq; got None"),
        ({"name": "fsq"}, "quantizer.levels\n  Field required"),
        ({"name": "fsq", "levels": [1]}, "greater than or equal to 2"),
        ({"name": "fsq", "levels": []}, "at least 1 item"),
        ({"name": "lfq", "bits": 9, "levels": [2]}, "Extra inputs are not permitted"),
        ({"name": "rvq", "depth": 1}, "greater than or equal to 2"),
    ],
)
def test_wrong_settings_are_refused(quantizer: Any, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        architecture(quantizer)
    assert text in str(caught.value)


def test_a_loss_over_the_batch_forbids_micro_batches() -> None:
    training = {"encoder": SIZE, "decoder": SIZE, "steps": 1, "batch_size": 8, "lr": 1e-3}
    values = {**training, "micro_batch": 2}
    with pytest.raises(ValidationError, match="quantizer lfq with entropy_weight > 0 does not go"):
        TokenizerConfig.model_validate({**values, "quantizer": {"name": "lfq", "bits": 9}})
    quiet = {"name": "lfq", "bits": 9, "entropy_weight": 0}
    assert TokenizerConfig.model_validate({**values, "quantizer": quiet})
    # The other quantizers do not read the key.
    fsq = {"name": "fsq", "levels": [3]}
    assert TokenizerConfig.model_validate({**values, "quantizer": fsq, "entropy_weight": 1})


class OutsideConfig(QuantizerConfig):
    """Quantizer of somebody else."""

    name: Literal["outside"]
    bins: int = 7

    reads: ClassVar[frozenset[str]] = COMMON | {"codebook_dim"}

    def code_shape(self, codebook: CodebookConfig) -> CodeShape:
        return CodeShape(self.bins, codebook.codebook_dim)


@pytest.fixture
def outside() -> Iterator[QuantizerKind]:
    kind = register(QuantizerKind(OutsideConfig, "my_lab.module:Module", "my_lab.layout:layout"))
    yield kind
    del QUANTIZERS["outside"]


def test_a_quantizer_from_outside_is_like_ours(outside: QuantizerKind) -> None:
    config = architecture({"name": "outside", "bins": 11}, codebook_dim=3)
    assert config.code_shape == CodeShape(11, 3)
    assert config.identity.count('"quantizer":{"bins":11,"name":"outside"}') == 1
    again = TokenizerArchitecture.model_validate(config.model_dump(mode="json"))
    assert again == config
    with pytest.raises(ValidationError, match="got 'outsid'"):
        architecture({"name": "outsid"})


def test_names_are_given_once(outside: QuantizerKind) -> None:
    with pytest.raises(ValueError, match="there is a quantizer 'outside' already"):
        register(outside)


def test_a_name_with_a_default_is_refused() -> None:
    class Nameless(QuantizerConfig):
        name: Literal["nameless"] = "nameless"

    with pytest.raises(ValueError, match=r"write `name: Literal\['nameless'\]` alone"):
        register(QuantizerKind(Nameless, "my_lab.module:Module", "my_lab.layout:layout"))
