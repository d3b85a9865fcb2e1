from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import ValidationError

from gigatok.config import SamplingConfig
from gigatok.config.fields.identity import identity_fields
from gigatok.config.kinds.samplers import SAMPLERS, SamplerConfig, SamplerKind, register
from gigatok.stages.evaluate_generation.run import guidance


def sampling(**changes: Any) -> SamplingConfig:
    return SamplingConfig.model_validate({"num_images": 4, **changes})


def test_keys_hold_what_a_sampler_reads() -> None:
    assert sampling(sampler={"name": "truncated"}).identity == sampling().identity
    assert sampling(top_k=5, top_p=0.5).identity == '{"num_images":4,"top_k":5,"top_p":0.5}'
    min_p = {"name": "min_p", "min_p": 0.1}
    written = '"num_images":4,"sampler":{"min_p":0.1,"name":"min_p"}'
    assert sampling(sampler=min_p, top_k=5, top_p=0.5).identity == f"{{{written}}}"
    assert '"temperature":0.5' in sampling(sampler=min_p, temperature=0.5).identity


@pytest.mark.parametrize("name", SAMPLERS)
def test_defaults_are_pinned(name: str) -> None:
    """None has any; a changed one would give old keys another meaning."""
    fields = identity_fields(SAMPLERS[name].config)
    assert {f.name: f.default for f in fields if f.default is not None} == {}


@pytest.mark.parametrize(
    ("sampler", "text"),
    [
        ({"name": "minp"}, "name must be one of truncated, min_p; got 'minp'"),
        ({"name": "min_p"}, "sampler.min_p\n  Field required"),
        ({"name": "min_p", "min_p": 0}, "greater than 0"),
        ({"name": "truncated", "min_p": 0.1}, "Extra inputs are not permitted"),
    ],
)
def test_wrong_settings_are_refused(sampler: Any, text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        sampling(sampler=sampler)
    assert text in str(caught.value)


def test_protocols_name_the_sampler_and_what_it_reads() -> None:
    config = sampling(sampler={"name": "min_p", "min_p": 0.1}, temperature=2, top_k=5, cfg_scale=1)
    assert guidance(config) == "no guidance, sampler min_p-0.1, temperature 2"


def test_names_are_given_once_and_have_no_default() -> None:
    with pytest.raises(ValueError, match="there is a sampler 'min_p' already"):
        register(SAMPLERS["min_p"])

    class Nameless(SamplerConfig):
        name: Literal["nameless"] = "nameless"

    with pytest.raises(ValueError, match=r"write `name: Literal\['nameless'\]` alone"):
        register(SamplerKind(Nameless, "my_lab.module:draw"))
