"""The studies of a runs directory, as `status` lists them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from orchestration.__main__ import app
from orchestration.commands.studies import age
from orchestration.execution.progress import survey
from orchestration.launching.claimed import record_claims
from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.plan.graph import Plan, make_plan
from orchestration.runs.state import Store
from orchestration.study.listing import list_studies
from orchestration.sweep.definition import expand, load_sweep
from tests.orchestration.tracking.tracking_helpers import Run, keys_of, plan_of

CLAIMING = """\
question: Does a larger decoder help?
scale: smoke
axes: {tokenizer.decoder: [S, B]}
set: {tokenizer.encoder: S}
seeds: [0, 1]
stages: [evaluate_reconstruction]
claims: {helps: psnr rises over tokenizer.decoder}
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "runs")


def launched(plan: Plan, store: Store) -> Plan:
    record_launch(plan, store, LaunchRequest(sweep=f"{plan.sweep.name}.yaml"))
    return plan


def shown(store: Store, *arguments: str) -> str:
    words = ["status", "--runs-dir", str(store.root), *arguments]
    done = CliRunner().invoke(app, words, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.stdout


def test_every_study_has_a_line_the_newest_first(store: Store, tmp_path: Path) -> None:
    assert "nothing was launched into" in shown(store)
    first = launched(plan_of(tmp_path, "first"), store)
    for key in first.trials[0].stages.values():
        Run(store, first, key).complete()
    launched(plan_of(tmp_path, "second", "[L]"), store)
    lines = {line.sweep: line for line in list_studies(store.root)}
    assert list(lines) == ["second", "first"]
    assert (lines["first"].complete, lines["first"].trials, lines["first"].state) == (
        1,
        2,
        "waiting",
    )
    table = shown(store)
    assert max(map(len, table.splitlines())) <= 80
    assert " 1/2  waiting " in table
    assert json.loads(shown(store, "--json"))[1]["sweep"] == "first"
    assert "at scale micro" in shown(store, "--scale", "micro")


def test_the_most_urgent_state_is_that_of_the_study(store: Store, tmp_path: Path) -> None:
    plan = launched(plan_of(tmp_path, "study"), store)
    one, other = keys_of(plan)
    Run(store, plan, one).fail("disk on fire")
    assert list_studies(store.root)[0].state == "failed"
    run = Run(store, plan, other)
    assert list_studies(store.root)[0].state == "running"
    run.complete()
    assert list_studies(store.root)[0].state == "failed"


def test_scales_are_studies_of_their_own(store: Store, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, "study")
    launched(plan, store)
    at_micro = replace(plan.sweep, scale="micro")
    launched(make_plan(at_micro, expand(at_micro)), store)
    assert {line.scale for line in list_studies(store.root)} == {"smoke", "micro"}


@pytest.mark.heavy
def test_a_study_with_claims_shows_its_verdicts(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "claiming.yaml"
    file.write_text(CLAIMING)
    sweep = load_sweep(file)
    plan = launched(make_plan(sweep, expand(sweep)), store)
    record_claims(survey(plan, store))
    assert list_studies(store.root)[0].answer == "1 claim: 1 undecided"
    assert "1 claim: 1 undecided" in " ".join(shown(store).split())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 min"), (59, "0 min"), (3599, "59 min"), (7200, "2 h")],
)
def test_ages_are_in_their_largest_unit(seconds: float, text: str) -> None:
    assert age(seconds) == text
