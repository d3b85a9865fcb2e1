"""Seeds until decided: which seeds a round adds, computed from what is complete alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import ConsoleDimensions

from gigatok.claims.claim import Looks
from gigatok.claims.power import foresee
from gigatok.names import KIND_SWEEP, TAG_REFUSED
from orchestration.commands.status import render
from orchestration.costs.calibration import Observation, append_observations
from orchestration.costs.cost import predict
from orchestration.execution.progress import stage_spec, survey
from orchestration.forecast.budget import newest_refusal
from orchestration.forecast.devices import Machine
from orchestration.launching.claimed import record_claims
from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.launching.outlook import claim_lines, unpaid_lines, verdict_lines
from orchestration.launching.rounds import Limit, added_line, due_seeds, record_refused, with_seeds
from orchestration.plan.graph import Plan, make_plan
from orchestration.runs.holder import acquire
from orchestration.runs.stage_records import Attempt, Done
from orchestration.runs.state import Store
from orchestration.study.study import Study
from orchestration.sweep.definition import SweepError, expand, load_sweep
from orchestration.terminal import printed, quiet_console
from orchestration.tracking.shipping import default_uri
from tests.orchestration.tracking.tracking_helpers import Reader

SWEEP = """question: Does it?
scale: smoke
axes: {tokenizer.decoder: [S, B, L]}
set: {tokenizer.encoder: S}
seeds: SEEDS
stages: [evaluate_reconstruction]
claims: {helps: psnr at tokenizer.decoder=B is higher than at S}
"""
UNTIL = "{start: 2, until: decided, at_most: 4}"
SECONDS = 36.0
"""Length of every stage: a hundredth of an hour."""
MACHINE = Machine("CPU", 1, 1, 0, None, 1)
Gain = Callable[[int], float]
"""PSNR of B above that of S, by seed."""


def planned(folder: Path, seeds: str = UNTIL, text: str = SWEEP) -> Plan:
    file = folder / "study.yaml"
    file.write_text(text.replace("SEEDS", seeds))
    sweep = load_sweep(file)
    return make_plan(sweep, expand(sweep))


def complete(plan: Plan, store: Store, gain: Gain, *, but: str = "") -> None:
    """Complete all stages of a plan without any work, but those of one trial."""
    progress = survey(plan, store)
    record_claims(progress)
    for trial in plan.trials:
        config = trial.trial.config
        gained = gain(config.seed) if config.tokenizer.decoder.name == "B" else 0.0
        for key in trial.stages.values():
            holder = acquire(store.create(stage_spec(plan.stages[key], progress)))
            if holder is None or trial.trial.name == but:
                continue  # complete, or left
            now = time.time()
            took = Attempt(number=1, host="h", pid=1, started=now, ended=now + SECONDS)
            holder.record(took.model_copy(update={"outcome": "complete"}))
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


def limit(hours: float) -> Limit:
    return Limit(hours, lambda stage: MACHINE)


def calibrated(store: Store, plan: Plan) -> None:
    """Records of what the stages of a plan take."""
    append_observations(
        store,
        [
            Observation(
                stage=stage.stage,
                key=key,
                readable=stage.readable,
                family=cost.work.family,
                unit_flops=cost.work.unit_flops,
                flops=cost.flops,
                seconds=SECONDS,
                device="CPU",
                threads=1,
                finished=0.0,
            )
            for (key, stage), cost in zip(plan.stages.items(), predict(plan).values(), strict=True)
        ],
    )


def names(plan: Plan) -> list[str]:
    return [trial.trial.name for trial in plan.trials]


def noise(seed: int) -> float:
    return (-1.0) ** seed


SEED_2 = {"S-S seed=2", "S-B seed=2", "S-L seed=2"}
START = ["S-S seed=0", "S-S seed=1", "S-B seed=0", "S-B seed=1", "S-L seed=0", "S-L seed=1"]


def test_nothing_is_added_before_the_first_look(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    assert names(plan) == START
    assert due_seeds(plan, store).plan is plan
    complete(plan, store, noise, but="S-L seed=1")
    assert due_seeds(plan, store).plan is plan, "one trial is left"


def test_settings_of_undecided_claims_get_one_seed_more(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    complete(plan, store, noise)
    grown = due_seeds(plan, store).plan
    assert names(grown) == [*START[:2], "S-S seed=2", *START[2:4], "S-B seed=2", *START[4:]]
    new = grown.trials[2].trial
    assert (new.config.seed, new.axes["seed"]) == (2, 2)
    assert added_line(plan, grown) == "undecided claims: 2 trials more (S-S seed=2, S-B seed=2)"
    # Stages of the seeds before are the same ones.
    assert set(plan.stages) < set(grown.stages)


def test_a_sweep_with_that_seed_has_the_same_stages(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    complete(plan, store, noise)
    grown = due_seeds(plan, store).plan
    listed = planned(tmp_path, "[0, 1, 2]")
    assert set(grown.stages) < set(listed.stages)


def test_decided_claims_get_no_more(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    complete(plan, store, lambda seed: 1.0 + 0.001 * seed)
    assert due_seeds(plan, store).plan is plan
    helps, _ = verdict_lines(survey(plan, store))
    assert helps.startswith("helps: supported,")
    assert line_of(plan, store) == "seeds until decided: no claim asks for more"


def test_it_ends_at_the_limit(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    for _ in range(5):
        complete(plan, store, noise)
        plan = due_seeds(plan, store).plan
    assert [n for n in names(plan) if n.startswith("S-B")] == [f"S-B seed={s}" for s in range(4)]
    complete(plan, store, noise)
    assert due_seeds(plan, store).plan is plan


def test_whoever_starts_over_adds_the_same_seeds(tmp_path: Path) -> None:
    """As after a kill: from the sweep's file alone, and from the plan of any round."""
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    complete(plan, store, noise)
    second = due_seeds(plan, store).plan
    complete(second, store, noise)
    third = due_seeds(second, store).plan
    assert third.key == due_seeds(planned(tmp_path), store).plan.key != second.key


def test_looks_are_part_of_what_was_claimed(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    (first,) = record_claims(survey(planned(tmp_path), store))
    longer = planned(tmp_path, UNTIL.replace("4", "8"))
    (later,) = record_claims(replace(survey(longer, store), reused=frozenset(longer.stages)))
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


# The limit of all rounds


def test_a_round_that_exceeds_the_limit_is_not_begun(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    calibrated(store, plan)
    complete(plan, store, noise)
    round_2 = due_seeds(plan, store).plan
    # Every stage took a hundredth of an hour, and so will the new ones.
    needed = len(round_2.stages) * SECONDS / 3600
    assert due_seeds(plan, store, limit(needed + 1e-6)).plan.key == round_2.key
    due = due_seeds(plan, store, limit(needed - 1e-6))
    assert (due.plan.key, due.claims) == (plan.key, ("helps",))
    spent, more = len(plan.stages), len(round_2.stages) - len(plan.stages)
    assert due.refused == (
        f"helps stays undecided for want of budget, --max-gpu-hours {needed - 1e-6:g}: "
        f"{spent / 100:.2g} spent + {more / 100:.2g} for a seed = {needed:.2g} core hours"
    )


def test_a_round_that_was_begun_goes_on_whatever_it_takes(tmp_path: Path) -> None:
    """As after a kill in the middle of it."""
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    calibrated(store, plan)
    complete(plan, store, noise)
    round_2 = due_seeds(plan, store).plan
    record_launch(round_2, store, LaunchRequest(sweep="study"))
    assert due_seeds(plan, store, limit(0.0)).plan.key == round_2.key
    complete(round_2, store, noise)
    assert due_seeds(plan, store, limit(0.0)).plan.key == round_2.key


def test_what_was_there_before_the_claims_costs_nothing(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    calibrated(store, plan)
    complete(plan, store, noise)
    round_2 = due_seeds(plan, store).plan
    (study,) = (store.root / "sweeps").glob("*/claims.jsonl")
    study.unlink()
    record_claims(survey(plan, store))
    needed = (len(round_2.stages) - len(plan.stages)) * SECONDS / 3600
    assert due_seeds(plan, store, limit(needed + 1e-6)).plan.key == round_2.key


def test_the_claims_that_come_first_get_what_the_limit_allows(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    also = "more: psnr at tokenizer.decoder=L is higher than at S"
    plan = planned(tmp_path, text=SWEEP.replace("at S}", f"at S, {also}}}"))
    calibrated(store, plan)
    complete(plan, store, noise)
    assert set(names(due_seeds(plan, store).plan)) >= SEED_2
    first = with_seeds(plan, {"S-S": 3, "S-B": 3})
    due = due_seeds(plan, store, limit(len(first.stages) * SECONDS / 3600 + 1e-6))
    assert due.plan.key == first.key
    assert set(names(due.plan)) & SEED_2 == {"S-S seed=2", "S-B seed=2"}
    # Killed in the midst of it, and then: there is nothing left for any claim.
    complete(due.plan, store, noise)
    over = due_seeds(due.plan, store, limit(len(first.stages) * SECONDS / 3600 + 1e-6))
    assert (over.plan.key, over.claims) == (due.plan.key, ("helps", "more"))
    assert over.refused is not None
    assert over.refused.startswith("helps, more stay undecided for want of budget")


def test_without_a_price_no_round_fits(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    complete(plan, store, noise)
    due = due_seeds(plan, store, limit(1e6))
    assert due.refused is not None
    assert "nobody knows what another seed takes" in due.refused


def test_the_verdict_says_that_the_budget_is_spent(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    calibrated(store, plan)
    complete(plan, store, noise)
    due = due_seeds(plan, store, limit(0.01))
    assert due.refused is not None
    record_refused(due, store)
    helps, _ = verdict_lines(survey(plan, store))
    (unpaid,) = unpaid_lines(survey(plan, store))
    assert helps.startswith("helps: undecided,")
    assert unpaid == due.refused
    refusal = newest_refusal(store, "study")
    assert refusal is not None
    assert refusal.claims == ("helps",)
    # Whoever pays more is not told of it again.
    larger = due_seeds(plan, store).plan
    assert len(verdict_lines(survey(larger, store))) == 2


# What all rounds cost


def line_of(plan: Plan, store: Store) -> str:
    progress = survey(plan, store, lambda stage: MACHINE.site)
    *_, line = claim_lines(progress, lambda stage: MACHINE)
    return line


def test_of_unknown_claims_the_plan_says_the_most_that_rounds_cost(tmp_path: Path) -> None:
    store, plan = Store(tmp_path / "runs"), planned(tmp_path)
    calibrated(store, plan)
    # No claim is about the third setting.
    most = with_seeds(plan, {"S-S": 4, "S-B": 4})
    assert line_of(plan, store) == (
        "seeds until decided: nothing is known yet of helps; at most 4 seeds and "
        f"{len(most.stages) / 100:.2g} core hours"
    )


def test_the_plan_says_what_rounds_are_expected_to_cost(tmp_path: Path) -> None:
    store, earlier = Store(tmp_path / "runs"), planned(tmp_path)
    complete(earlier, store, lambda seed: 1.0 + 0.5 * noise(seed))
    record_launch(earlier, store, LaunchRequest(sweep="study"))
    # Another length of training: nothing of it has run.
    plan = planned(tmp_path, text=SWEEP.replace("encoder: S", "encoder: S, tokenizer.steps: 4"))
    calibrated(store, plan)
    course = foresee(1.0, 0.5 * 2**0.5, Looks(start=2, at_most=4))
    assert 2.1 < course.seeds < 3.9
    # Less what no length of training changes, which is complete.
    most = len(with_seeds(plan, {"S-S": 4, "S-B": 4}).stages.keys() - earlier.stages.keys())
    one_more = most - len(
        with_seeds(plan, {"S-S": 3, "S-B": 3}).stages.keys() - earlier.stages.keys()
    )
    hours = (most - 2 * one_more + one_more * (course.seeds - 2)) / 100
    assert line_of(plan, store) == (
        f"seeds until decided: expected are {course.seeds:.1f} seeds per setting and {hours:.2g} "
        f"core hours over all rounds; at most 4 seeds and {most / 100:.2g} core hours"
    )
    # A third seed is sure once it is in the plan.
    third = with_seeds(plan, {"S-S": 3, "S-B": 3})
    late = 3 + course.reaches(4) / course.reaches(3)
    assert f"expected are {late:.1f} seeds per setting" in line_of(third, store)
    claim, _ = claim_lines(survey(plan, store), lambda stage: MACHINE)
    assert (
        f"2 seeds decide it with probability {1 - course.undecided[0]:.0%}, up to 4 with "
        f"{1 - course.undecided[-1]:.0%}, if it is as launched at scale smoke: +1.000 dB"
    ) in claim


@pytest.mark.heavy
def test_a_launch_that_cannot_pay_for_a_round_ends_and_says_so(
    store: Store, tmp_path: Path
) -> None:
    complete(planned(tmp_path), store, noise)
    study = Study(tmp_path / "study.yaml", runs=store.root)
    result = study.run(max_gpu_hours=0.001)
    assert result.outcome == "done"
    assert result.progress is not None
    (unpaid,) = [line for line in unpaid_lines(result.progress) if "budget" in line]
    assert unpaid.startswith("helps stays undecided for want of budget, --max-gpu-hours 0.001: ")
    console = quiet_console()
    console.print(render(study.status(), ConsoleDimensions(200, 50)))
    assert unpaid in printed(console).replace("\n", " ")
    tags = Reader(default_uri(store)).one(KIND_SWEEP).data.tags
    assert tags[TAG_REFUSED] == unpaid
