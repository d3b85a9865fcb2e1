"""Keys: what changes them, what must not, and the golden ones that users' results rest on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gigatok.config import TransformerSize
from gigatok.stages import STAGES
from orchestration.plan.graph import make_plan
from orchestration.plan.identity import canonical
from orchestration.sweep.definition import expand, load_sweep
from tests.orchestration.plan.pins import current_keys, keys_of, plan, read


def test_golden_keys() -> None:
    """Changing a key throws away results: do it knowingly, and say so in the commit.

    After a deliberate change: `python -m tests.orchestration.plan.pins`.
    """
    assert current_keys() == read("keys.json")


def changed(*overrides: str) -> set[str]:
    """Stages of S-B whose key differs from the unchanged plan's."""
    before, after = keys_of(plan())["S-B"], keys_of(plan("decoder_scaling", "smoke", *overrides))
    (other,) = [stages for name, stages in after.items() if name.startswith("S-B")]
    return {stage for stage in other if before.get(stage) != other[stage]}


ALL = set(STAGES) - {"adopt_tokenizer", "adopt_generator", "probe_tokenizer", "search_guidance"}
AFTER_CODES = {"train_generator", "evaluate_generation", "linear_probe"}
TRAINED = ALL - {"extract_teacher_features", "extract_reference_features"}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sampling.cfg_scale=2.0", {"evaluate_generation"}),
        ("probe.epochs=5", {"linear_probe"}),
        ("tokenizer_probe.features=encoder", {"probe_tokenizer"}),
        ("guidance.search=grid", {"search_guidance"}),
        ("generator.lr=1e-3", AFTER_CODES),
        ("codes.flip=true", AFTER_CODES | {"extract_codes"}),
        ("data.val_images=50", AFTER_CODES | {"extract_codes"}),
        ("tokenizer.lr=1e-3", TRAINED),
        ("seed=7", TRAINED),
        ("data.train_images=100", ALL - {"extract_reference_features"}),
        ("tokenizer.teacher_components=4", ALL - {"extract_reference_features"}),
        (
            "evaluation.num_images=40",
            {"extract_reference_features", "evaluate_reconstruction", "evaluate_generation"},
        ),
        ("tokenizer.micro_batch=4", set()),
        ("tokenizer.log_every=1", set()),
        ("generator.checkpoint_every=3", set()),
        ("generator.activation_checkpointing=true", set()),
    ],
)
def test_an_override_changes_the_stages_that_read_it(override: str, expected: set[str]) -> None:
    assert changed(override) == expected


def test_the_letter_of_a_size_is_not_identity() -> None:
    named = TransformerSize(name="S", width=64, layers=2, heads=2)
    assert canonical(named) == canonical(named.model_copy(update={"name": ""}))
    assert named.identity == named.model_copy(update={"name": ""}).identity


def test_sweeps_share_stages() -> None:
    decoder, tokenizer = plan(), plan("tokenizer_scaling")
    shared = decoder.stages.keys() & tokenizer.stages.keys()
    both = {
        decoder.stages[key].readable
        for key in shared
        if decoder.stages[key].stage == "linear_probe"
    }
    assert both == {"S-S", "S-B"}


def test_stages_come_after_their_inputs() -> None:
    seen: set[str] = set()
    for key, stage in plan("tokenizer_scaling").stages.items():
        assert set(stage.inputs.values()) <= seen
        seen.add(key)


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ("[extract_codes]", {"extract_teacher_features", "train_tokenizer", "extract_codes"}),
        ("[extract_reference_features]", {"extract_reference_features"}),
    ],
)
def test_only_requested_stages_and_their_inputs_are_planned(
    tmp_path: Path, stages: str, expected: set[str]
) -> None:
    file = tmp_path / "few.yaml"
    file.write_text(
        "question: q\nscale: smoke\n"
        "axes: {tokenizer.encoder: [S], tokenizer.decoder: [S]}\n"
        f"stages: {stages}\n"
    )
    sweep = load_sweep(file)
    planned = make_plan(sweep, expand(sweep))
    assert {stage.stage for stage in planned.stages.values()} == expected


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes"])
def test_values_without_a_stable_form_are_refused(value: Any) -> None:
    with pytest.raises(AssertionError, match="no stable form"):
        canonical(value)


def test_unregularised_trials_need_no_teacher() -> None:
    planned = plan("decoder_scaling", "smoke", "tokenizer.semantic_weight=0")
    assert "extract_teacher_features" not in {stage.stage for stage in planned.stages.values()}
