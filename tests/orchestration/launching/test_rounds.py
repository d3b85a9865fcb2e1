"""Seeds until decided: which seeds a round adds, computed from what is complete alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestration.execution.progress import stage_spec, survey
from orchestration.launching.claimed import record_claims
from orchestration.launching.outlook import verdict_lines
from orchestration.launching.rounds import added_line, with_due_seeds
from orchestration.plan.graph import Plan, make_plan
from orchestration.runs.holder import acquire
from orchestration.runs.stage_records import Done
from orchestration.runs.state import Store
from orchestration.sweep.definition import SweepError, expand, load_sweep

SWEEP = """question: Does it?
scale: smoke
axes: {tokenizer.decoder: [S, B, L]}
set: {tokenizer.encoder: S}
seeds: SEEDS
stages: [evaluate_reconstruction]
claims: {helps: psnr at tokenizer.decoder=B is higher than at S}
"""
UNTIL = "{start: 2, until: decided, at_most: 4}"
Gain = Callable[[int], float]
"""PSNR of B above that of S, by seed."""


def planned(folder: Path, seeds: str = UNTIL) -> Plan:
    file = folder / "study.yaml"
    file.write_text(SWEEP.replace("SEEDS", seeds))
    sweep = load_sweep(file)
    return make_plan(sweep, expand(sweep))


def complete(plan: Plan, store: Store, gain: Gain, *, but: str = "") -> None:
    """Complete all stages of a plan without any work, but those of one trial."""
    progress = survey(plan, store)
    record_claims(plan, store, progress.reused)
    for trial in plan.trials:
        config = trial.trial.config
        gained = gain(config.seed) if config.tokenizer.decoder.name == "B" else 0.0
        for key in trial.stages.values():
            holder = acquire(store.create(stage_spec(plan.stages[key], progress)))
            if holder is None or trial.trial.name == but:
                continue  # complete, or left
            holder.complete(
                Done(
                    metrics={"psnr": 20.0 + config.seed + gained},
                    protocol={},
                    artifacts={},
                    finished=1.0,
                    seconds=1.0,
                    attempt=1,
                )
            )


def names(plan: Plan) -> list[str]:
    return [trial.trial.name for trial in plan.trials]


def noise(seed: int) -> float:
    return (-1.0) ** seed


START = ["S-S seed=0", "S-S seed=1", "S-B seed=0", "S-B seed=1", "S-L seed=0", "S-L seed=1"]


def test_nothing_is_added_before_the_first_look(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    assert names(plan) == START
    assert with_due_seeds(plan, store) is plan
    complete(plan, store, noise, but="S-L seed=1")
    assert with_due_seeds(plan, store) is plan, "one trial is left"


def test_settings_of_undecided_claims_get_one_seed_more(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    complete(plan, store, noise)
    grown = with_due_seeds(plan, store)
    assert names(grown) == [*START[:2], "S-S seed=2", *START[2:4], "S-B seed=2", *START[4:]]
    new = grown.trials[2].trial
    assert (new.config.seed, new.axes["seed"]) == (2, 2)
    assert added_line(plan, grown) == "undecided claims: 2 trials more (S-S seed=2, S-B seed=2)"
    # Stages of the seeds before are the same ones.
    assert set(plan.stages) < set(grown.stages)


def test_a_sweep_with_that_seed_has_the_same_stages(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    complete(plan, store, noise)
    grown = with_due_seeds(plan, store)
    listed = planned(tmp_path, "[0, 1, 2]")
    assert set(grown.stages) < set(listed.stages)


def test_decided_claims_get_no_more(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    complete(plan, store, lambda seed: 1.0 + 0.001 * seed)
    assert with_due_seeds(plan, store) is plan
    helps, _ = verdict_lines(survey(plan, store))
    assert helps.startswith("helps: supported.")


def test_it_ends_at_the_limit(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    for _ in range(5):
        complete(plan, store, noise)
        plan = with_due_seeds(plan, store)
    assert [n for n in names(plan) if n.startswith("S-B")] == [f"S-B seed={s}" for s in range(4)]
    complete(plan, store, noise)
    assert with_due_seeds(plan, store) is plan


def test_whoever_starts_over_adds_the_same_seeds(tmp_path: Path) -> None:
    """As after a kill: from the sweep's file alone, and from the plan of any round."""
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    complete(plan, store, noise)
    second = with_due_seeds(plan, store)
    complete(second, store, noise)
    third = with_due_seeds(second, store)
    assert third.key == with_due_seeds(planned(tmp_path), store).key != second.key


def test_looks_are_part_of_what_was_claimed(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    (first,) = record_claims(planned(tmp_path), store, ())
    longer = planned(tmp_path, UNTIL.replace("4", "8"))
    (later,) = record_claims(longer, store, longer.stages)
    assert (first.results, later.results) == (0, 4)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ("{start: 3, until: decided}", "seeds.at_most: missing"),
        ("{start: 1, until: decided, at_most: 8}", "seeds.start: got 1"),
        ("{start: 5, until: decided, at_most: 4}", "at_most 4 is below start 5"),
        ("{start: 3, until: done, at_most: 8}", "seeds.until: got 'done'"),
        ("{start: 3, until: decided, at_most: 8, of: 1}", "seeds.of: unknown key"),
    ],
)
def test_wrong_seeds_are_reported(tmp_path: Path, seeds: str, message: str) -> None:
    with pytest.raises(SweepError) as found:
        planned(tmp_path, seeds)
    assert message in str(found.value)


def test_without_claims_nothing_is_to_be_decided(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(SWEEP.partition("claims:")[0].replace("SEEDS", UNTIL))
    with pytest.raises(SweepError, match="seeds until decided need `claims`"):
        load_sweep(file)
