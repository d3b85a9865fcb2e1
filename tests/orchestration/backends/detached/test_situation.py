"""What the controller makes of jobs that are over without a result."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestration.backends.detached.situation import Situation, judge, open_stages
from orchestration.backends.slurm.queue import status_of
from orchestration.execution.progress import Progress, stage_spec, survey
from orchestration.policy.profile import Profile
from orchestration.runs.state import Store
from tests.orchestration.tracking.tracking_helpers import Run, keys_of, plan_of


@pytest.fixture
def progress(tmp_path: Path, store: Store) -> Progress:
    """A tokenizer and its codes behind it; what the tokenizer needs is complete."""
    plan = plan_of(tmp_path, "study", decoders="[S]", stages="[extract_codes]")
    for key in plan.stages:
        if plan.stages[key].stage.startswith("extract_teacher"):
            Run(store, plan, key).complete()
    progress = survey(plan, store)
    store.create_all(stage_spec(stage, progress) for stage in plan.stages.values())
    return progress


def tokenizer(progress: Progress) -> str:
    return keys_of(progress.plan)[0]


def codes(progress: Progress) -> str:
    return keys_of(progress.plan, "extract_codes")[0]


def judged(progress: Progress, since: float = 0.0, **over: str) -> Progress:
    keys = {"tokenizer": tokenizer(progress), "codes": codes(progress)}
    statuses = {keys[name]: status_of(state, exit_code=1) for name, state in over.items()}
    judge(progress, Situation(over=statuses), Profile(), since)
    return progress


def test_a_killed_job_is_tried_again_and_fails_at_last(progress: Progress, store: Store) -> None:
    key = tokenizer(progress)
    Run(store, progress.plan, key).die()
    for _ in range(2):
        # The scheduler removes what waits for a job that did not succeed.
        judged(progress, tokenizer="FAILED", codes="CANCELLED")
        assert open_stages(progress) == [key, codes(progress)]
    judged(progress, tokenizer="NODE_FAIL", codes="CANCELLED")
    judged(progress, tokenizer="FAILED", codes="CANCELLED")
    assert progress.failures[key].kind == "killed"
    assert progress.states[codes(progress)] == "UPSTREAM_FAILED"
    assert open_stages(progress) == []


def test_what_somebody_cancelled_by_hand_is_left_alone(progress: Progress) -> None:
    judged(progress, tokenizer="CANCELLED", codes="CANCELLED")
    key = tokenizer(progress)
    assert progress.failures[key].kind == "cancelled"
    assert progress.folders[key].state() == "FAILED"
    assert progress.states[codes(progress)] == "UPSTREAM_FAILED"


def test_what_was_cancelled_before_it_was_queued_is_not_queued(
    progress: Progress, store: Store
) -> None:
    Run(store, progress.plan, codes(progress)).die().cancel("somebody")
    judged(progress)
    assert open_stages(progress) == [tokenizer(progress)]
    assert "somebody" in progress.failures[codes(progress)].message


def test_what_a_worker_said_stands(progress: Progress, store: Store) -> None:
    key = tokenizer(progress)
    Run(store, progress.plan, key).fail("no luck")
    judged(progress, tokenizer="FAILED")
    assert progress.failures[key].message == "no luck"
    assert open_stages(progress) == []


def test_identical_exceptions_hold_the_sweep(tmp_path: Path, store: Store) -> None:
    plan = plan_of(tmp_path, "many", decoders="[S, B, L]")
    before = time.time()
    for key in keys_of(plan):
        Run(store, plan, key).fail("ValueError: no luck")
    held, later = survey(plan, store), survey(plan, store)
    judge(held, Situation(), Profile(), before - 1)
    assert held.held is not None
    assert "SWEEP" in held.held
    judge(later, Situation(), Profile(), time.time() + 1)
    assert later.held is None


def test_what_was_taken_out_of_the_queue_of_a_held_sweep_has_not_failed(
    tmp_path: Path, store: Store
) -> None:
    plan = plan_of(tmp_path, "many", decoders="[S, B, L]")
    first, *others = keys_of(plan)
    Run(store, plan, first).fail("ValueError: no luck")
    progress = survey(plan, store)
    over = dict.fromkeys(others, status_of("CANCELLED"))
    judge(progress, Situation(over=over), Profile(hold_after=1), 0.0)
    assert progress.held is not None
    assert set(others) <= set(open_stages(progress))
