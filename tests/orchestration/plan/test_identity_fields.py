"""Mutation of any one field of a trial changes exactly the keys of the stages that read it."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gigatok.config import TransformerSize, TrialConfig
from orchestration.plan.graph import make_plan
from orchestration.sweep.definition import load_sweep
from orchestration.sweep.grid.expansion import Expansion, Trial
from orchestration.sweep.settings.keys import trial_keys

SPLITS = {"extract_teacher_features", "train_tokenizer", "extract_codes", "probe_tokenizer"}
ON_VAL = {"extract_reference_features", "evaluate_reconstruction"}
SAMPLED = {"evaluate_generation", "search_guidance"}
SEEDED = {"train_tokenizer", "train_generator", "linear_probe", "probe_tokenizer", *SAMPLED}

READERS: dict[str, set[str]] = {
    "data": SPLITS | ON_VAL,
    "data.train_images": SPLITS,
    "data.val_images": {"extract_codes", "probe_tokenizer"},
    "tokenizer": {"train_tokenizer"},
    "tokenizer.teacher": {"train_tokenizer", "extract_teacher_features"},
    "tokenizer.teacher_components": {"train_tokenizer", "extract_teacher_features"},
    "tokenizer.augment": {"train_tokenizer", "extract_teacher_features"},
    "codes": {"extract_codes", "probe_tokenizer"},
    "generator": {"train_generator"},
    "sampling": SAMPLED,
    "sampling.cfg_scale": {"evaluate_generation"},
    "evaluation": ON_VAL | SAMPLED,
    "evaluation.lpips_network": {"evaluate_reconstruction"} | SAMPLED,
    "evaluation.reference": SAMPLED,
    "guidance": {"search_guidance"},
    "probe": {"linear_probe", "probe_tokenizer"},
    "probe.layer": {"linear_probe"},
    "probe.reference_dropout_quirk": {"linear_probe"},
    "tokenizer_probe": {"probe_tokenizer"},
    "seed": SEEDED,
}
"""A field, or else its section -> the stages that read it themselves."""

NO_IDENTITY = {
    f"{section}.{name}"
    for section in ("tokenizer", "generator")
    for name in (
        *("micro_batch", "activation_checkpointing", "parallel", "compile"),
        *("log_every", "checkpoint_every"),
    )
} | {
    "sampling.compile",
    "data.val_fraction",  # of a user's images, whose content tells what it has led to
    *("guidance.start", "guidance.step"),  # of a hill climb, which the base does not make
}
"""Where and how fast a stage runs, and what others make meaningless."""

BEHIND: dict[str, set[str]] = {
    "extract_teacher_features": {"train_tokenizer"},
    "extract_reference_features": {"evaluate_reconstruction", *SAMPLED},
    "train_tokenizer": {"evaluate_reconstruction", "extract_codes", "probe_tokenizer", *SAMPLED},
    "extract_codes": {"train_generator", "linear_probe"},
    "train_generator": {"linear_probe", *SAMPLED},
}
"""Stage -> the stages that read its outputs."""


def expected(field: str) -> set[str]:
    """The readers of a field and all that is behind them."""
    if field in NO_IDENTITY:
        return set()
    found, pending = set[str](), list(READERS.get(field, READERS[field.partition(".")[0]]))
    while pending:
        stage = pending.pop()
        if stage not in found:
            found.add(stage)
            pending += BEHIND.get(stage, ())
    return found


BASE = (
    *("tokenizer.decoder=B", "guidance.search=grid", "tokenizer_probe.features=encoder"),
    *("tokenizer.num_latent_tokens=16", "guidance.low=1.5", "guidance.num_images=8"),
    *("evaluation.network=inception", "evaluation.resolution=299"),  # as published statistics are
)
SWEEP = load_sweep("decoder_scaling", "smoke", BASE)
ONE_KIND = {name for name, key in trial_keys().items() if len(key.kinds) == 1}
"""Leaves for which only plug-ins have other values."""
FIELDS = sorted(
    {*trial_keys(), "seed"} - {"adopt.tokenizer", "adopt.generator", "data.path"} - ONE_KIND
)
"""Every leaf but those that name files: their content counts, and each has tests of its own."""


def keys(config: TrialConfig) -> dict[str, str]:
    """Stage -> key of one trial."""
    trial = Trial("t", config, {"seed": config.seed})
    return dict(make_plan(SWEEP, Expansion((trial,), ())).trials[0].stages)


@cache
def base() -> TrialConfig:
    return SWEEP.expansion.trials[0].config


@cache
def base_keys() -> dict[str, str]:
    return keys(base())


def value_of(field: str) -> Any:
    value: Any = base()
    for part in field.split("."):
        value = getattr(value, part)
    return value


def mutated(field: str, value: Any) -> TrialConfig | None:
    """The base with another value of one field; None where they do not fit together."""
    values = base().model_dump()
    *parents, last = field.split(".")
    inner = values
    for part in parents:
        inner = inner[part]
    inner[last] = value
    try:
        return TrialConfig.model_validate(values)
    except ValidationError:
        return None


def number(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    high = schema.get("maximum", max(1000, low + 1))
    if schema["type"] == "integer":
        low += "exclusiveMinimum" in schema
        return st.one_of(*(st.integers(low, min(low + most, int(high))) for most in (2, 20, 1000)))
    is_open = "exclusiveMinimum" in schema
    return st.floats(low, high, exclude_min=is_open, allow_subnormal=False)


def of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a JSON schema."""
    if "anyOf" in schema:
        # Text of a pattern names files, which would have to be there.
        return st.one_of(*(of(option) for option in schema["anyOf"] if "pattern" not in option))
    if "properties" in schema:
        parts = {name: of(schema["properties"][name]) for name in schema["required"]}
        return st.fixed_dictionaries(parts)
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] == "array":
        return st.lists(of(schema["items"]) | st.integers(1, 3), min_size=1, max_size=3).map(tuple)
    if schema["type"] in ("integer", "number"):
        return number(schema)
    return {"boolean": st.booleans(), "null": st.none()}[schema["type"]]


def sizes() -> st.SearchStrategy[TransformerSize]:
    shapes = st.tuples(st.integers(1, 4), st.integers(1, 32), st.integers(1, 6))
    return shapes.map(lambda s: TransformerSize(width=s[0] * s[1], layers=s[2], heads=s[0]))


def values(field: str) -> st.SearchStrategy[Any]:
    if field == "seed":
        return st.integers(0, 2**31)
    if field == "data.image_size":  # of which few go with the convolutions and the grid
        return st.sampled_from([32, 48, 64])
    key = trial_keys()[field]
    if not key.is_size:
        return of(key.schema)
    others = sizes().filter(lambda size: shape(size) != shape(value_of(field)))
    return others.map(lambda size: size.model_dump())


def shape(size: TransformerSize) -> tuple[int, int, int]:
    return size.width, size.layers, size.heads


def check(field: str, value: Any) -> bool:
    """Whether the value fits; if so, that it changes the keys that it must."""
    config = mutated(field, value)
    if config is None or config == base():
        return False
    after = keys(config)
    if after.keys() != base_keys().keys():  # a weight of zero needs no teacher, and the like
        return False
    changed = {stage for stage, key in after.items() if key != base_keys()[stage]}
    assert changed == expected(field), f"{field}: {value_of(field)} -> {value}"
    return True


def test_the_base_has_every_stage_but_those_of_adopted_weights() -> None:
    everything = {stage for readers in READERS.values() for stage in readers}
    assert base_keys().keys() == everything


@pytest.mark.parametrize("field", FIELDS)
def test_each_field_changes_the_stages_that_read_it(field: str) -> None:
    tried: list[bool] = []

    @settings(
        max_examples=25, phases=[Phase.generate], deadline=None, database=None, derandomize=True
    )
    @given(value=values(field))
    def some_values(value: Any) -> None:
        if not any(tried):
            tried.append(check(field, value))

    some_values()
    assert any(tried), f"no value of {field} was tried"


@pytest.mark.parametrize(
    "field", [key for key in FIELDS if key != "seed" and trial_keys()[key].is_size]
)
def test_the_name_of_a_size_changes_nothing(field: str) -> None:
    config = mutated(field, {**value_of(field).model_dump(), "name": "another"})
    assert config is not None
    assert config != base()
    assert keys(config) == base_keys()


def mutate_any(data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(FIELDS))
    assume(check(field, data.draw(values(field))))


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_any_mutation_changes_exactly_the_stages_that_read_it(data: st.DataObject) -> None:
    mutate_any(data)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_many_mutations_change_exactly_the_stages_that_read_them(
    data: st.DataObject,
) -> None:
    mutate_any(data)
