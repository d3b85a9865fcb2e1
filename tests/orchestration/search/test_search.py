"""Ask and tell: planted optima are found, and everything is a pure function of what was told."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from orchestration.search import asking
from orchestration.search.run import Round, _unseen
from tests.orchestration.search.search_helpers import (
    BEST_DROPOUT,
    BEST_RATE,
    PRUNED_BLOCK,
    STEPS,
    bowl,
    carry_out,
    load,
    memory,
)

TWO = """search:
  space:
    generator.lr: {{low: 1e-4, high: 1e-1, log: true}}
    generator.dropout: {{low: 0, high: 0.9}}
  sampler: {sampler}
  pruner: {pruner}
  objectives: [ar_val_loss]
  budget: {{trials: {trials}}}
  seed: {seed}
"""
GRID = """search:
  space:
    generator.lr: [1e-4, 1e-3, 3.1622776601683795e-3, 1e-2, 1e-1]
    generator.dropout: {{low: 0, high: 0.9, step: 0.1}}
  sampler: grid
  pruner: {pruner}
  objectives: [ar_val_loss]
  budget: {{trials: 50}}
"""
PRUNERS = {
    "none": "none",
    "asha": "{name: asha, every: 2, min_steps: 4, factor: 2}",
    "hyperband": "{name: hyperband, every: 2, min_steps: 4, factor: 2}",
    "median": "{name: median, every: 2, min_steps: 8}",
}


def block(sampler: str, pruner: str, trials: int = 60, seed: int = 0) -> str:
    if sampler == "grid":
        return GRID.format(pruner=PRUNERS[pruner])
    return TWO.format(sampler=sampler, pruner=PRUNERS[pruner], trials=trials, seed=seed)


@pytest.mark.heavy
@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "grid", "random"])
def test_the_planted_optimum_is_found_within_the_budget(
    tmp_path: Path, sampler: str, pruner: str
) -> None:
    search = load(tmp_path, block(sampler, pruner))
    study = memory(search)
    trials = carry_out(search, study, lambda params: [bowl(params)])
    (best,) = asking.best_trials(study, search)
    # Chance alone brings the better half of a decade and a tenth of dropout about once in 27.
    assert abs(math.log10(best.params["generator.lr"] / BEST_RATE)) < 0.5
    assert abs(best.params["generator.dropout"] - BEST_DROPOUT) < 0.1
    pruned = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert bool(pruned) == (pruner != "none")
    # What was pruned was rightly so: no pruned trial was better than the best.
    assert all(bowl(trial.params) >= best.value for trial in pruned)


def test_cmaes_leaves_no_state_in_the_storage_and_reads_none(tmp_path: Path) -> None:
    search = load(tmp_path, block("cmaes", "none"))
    study = memory(search)
    trials = carry_out(search, study, lambda params: [bowl(params)], most=30)
    assert [trial.system_attrs for trial in trials] == [{}] * 30
    spoilt = memory(search)
    for trial in trials:
        state = {"cma:optimizer:0": "80049503", "cma:generation": 4}  # begins as a pickle does
        told = optuna.trial.create_trial(
            params=trial.params,
            distributions=trial.distributions,
            values=trial.values,
            system_attrs=state,
        )
        spoilt.add_trial(told)
    assert asking.ask(search, spoilt).params == asking.ask(search, study).params


@pytest.mark.heavy
def test_cmaes_narrows_around_the_optimum(tmp_path: Path) -> None:
    search = load(tmp_path, block("cmaes", "none", trials=90))
    trials = carry_out(search, memory(search), lambda params: [bowl(params)])
    first, last = ([bowl(t.params) for t in part] for part in (trials[:18], trials[-18:]))
    assert sum(last) < sum(first) / 20


def test_a_grid_visits_every_cell_once_and_ends(tmp_path: Path) -> None:
    search = load(tmp_path, block("grid", "none"))
    trials = carry_out(search, memory(search), lambda params: [bowl(params)])
    assert asking.grid_size(search) == 50
    assert len({tuple(trial.params.items()) for trial in trials}) == 50


SEVERAL = """search:
  space:
    generator.lr: {{low: 1e-4, high: 1e-1, log: true}}
    generator.dropout: {{low: 0, high: 0.9}}
  sampler: {sampler}
  objectives: {{rfid: minimize, gfid: minimize, gpu_hours: minimize}}
  budget: {{trials: 100}}
"""


@pytest.mark.heavy
@pytest.mark.parametrize("sampler", ["nsga2", "tpe", "random"])
def test_several_objectives_approach_a_planted_front(tmp_path: Path, sampler: str) -> None:
    """The front: dropout at its optimum; along the rate one objective is paid with another."""
    search = load(tmp_path, SEVERAL.format(sampler=sampler))
    study = memory(search)

    def objective(params: dict[str, float]) -> list[float]:
        place = math.log10(params["generator.lr"]) + 4
        miss = abs(params["generator.dropout"] - BEST_DROPOUT)
        return [place + miss, 3 - place + miss, 1 + miss]

    carry_out(search, study, objective)
    front = asking.best_trials(study, search)
    nearest = min(abs(trial.params["generator.dropout"] - BEST_DROPOUT) for trial in front)
    assert nearest < 0.05
    assert len(front) > 3


def test_the_pareto_front_of_rfid_gfid_and_hours_is_exact() -> None:
    points = [
        (1.0, 9.0, 5.0),  # best rFID
        (2.0, 8.0, 5.0),
        (2.0, 8.0, 5.0),  # the same again: on the front as well
        (2.0, 8.5, 5.0),  # beaten by the two above
        (9.0, 1.0, 5.0),  # best gFID
        (9.5, 9.5, 0.1),  # bad, but cheapest
        (9.0, 1.0, 6.0),  # as good as the best gFID, but dearer
        (5.0, 5.0, 4.9),
    ]
    assert asking.pareto_front(points, ["minimize"] * 3) == [0, 1, 2, 4, 5, 7]
    turned = [(-a, b, c) for a, b, c in points]
    directions = ["maximize", "minimize", "minimize"]
    assert asking.pareto_front(turned, directions) == [0, 1, 2, 4, 5, 7]
    assert asking.pareto_front([], ["minimize"]) == []


@pytest.mark.heavy
@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "random"])
def test_suggestions_depend_on_seed_number_and_results_only(tmp_path: Path, sampler: str) -> None:
    search = load(tmp_path, block(sampler, "asha", trials=20))
    whole = carry_out(search, memory(search), lambda params: [bowl(params)])
    # Broken off after every trial and gone on with from a file, by a new process' objects.
    for most in range(1, 21):
        study = asking.open_study(search, "planted", tmp_path / "optuna.log")
        carry_out(search, study, lambda params: [bowl(params)], most)
    again = asking.open_study(search, "planted", tmp_path / "optuna.log").trials
    assert [t.params for t in again] == [t.params for t in whole]
    assert [t.state for t in again] == [t.state for t in whole]
    assert [t.intermediate_values for t in again] == [t.intermediate_values for t in whole]
    other = load(tmp_path, block(sampler, "asha", trials=20, seed=1))
    assert carry_out(other, memory(other), lambda p: [bowl(p)], 1)[0].params != whole[0].params


@pytest.mark.heavy
@pytest.mark.parametrize("pruner", ["asha", "hyperband", "median"])
def test_a_decision_that_was_not_carried_out_is_taken_again(tmp_path: Path, pruner: str) -> None:
    """Killed after any write of a report: value and decision come out the same."""
    search = load(tmp_path, block("random", pruner, trials=30))
    study = memory(search)
    for trial in carry_out(search, study, lambda params: [bowl(params)]):
        asked_later = asking.decide(
            search,
            study.trials[: trial.number + 1],
            trial.number,
            trial.intermediate_values,
            STEPS,
            study.study_name,
        )
        assert asked_later[0] == (trial.state == TrialState.PRUNED)


def test_a_line_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    search = load(tmp_path)
    file = tmp_path / "optuna.log"
    study = asking.open_study(search, "x", file)
    first = asking.ask(search, study)
    with file.open("ab") as journal:
        journal.write(b'{"op_code": 5, "worker')
    study = asking.open_study(search, "x", file)
    assert [trial.params for trial in study.trials] == [first.params]
    asking.tell(study, 0, TrialState.COMPLETE, [1.0])
    assert asking.open_study(search, "x", file).best_value == 1.0


def test_a_damaged_journal_is_named_with_its_line(tmp_path: Path) -> None:
    search = load(tmp_path)
    file = tmp_path / "optuna.log"
    asking.ask(search, asking.open_study(search, "x", file))
    first, *rest = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + b"\0\0\0\n" + b"".join(rest))
    with pytest.raises(ValueError, match=r"optuna\.log:2 cannot be read .*mv .*launch again"):
        asking.open_study(search, "x", file)
    file.unlink()
    file.mkdir()
    with pytest.raises(ValueError, match=r"optuna\.log cannot be read .*IsADirectoryError"):
        asking.open_study(search, "x", file)


def test_a_database_serves_as_well(tmp_path: Path) -> None:
    text = block("tpe", "none").replace(
        "  seed:", f"  storage: sqlite:///{tmp_path}/s.db\n  seed:"
    )
    search = load(tmp_path, text)
    study = asking.open_study(search, "x", tmp_path / "unused")
    asking.ask(search, study)
    assert len(optuna.load_study(study_name="x", storage=search.storage).trials) == 1
    assert not (tmp_path / "unused").exists()


def test_a_storage_that_is_none_is_refused(tmp_path: Path) -> None:
    text = block("tpe", "none").replace("  seed:", "  storage: nonsense\n  seed:")
    with pytest.raises(ValueError, match=r"search.storage nonsense: .*must be an URL as Optuna"):
        asking.open_study(load(tmp_path, text), "x", tmp_path / "unused")


@pytest.mark.heavy
def test_the_key_that_matters_is_named(tmp_path: Path) -> None:
    search = load(tmp_path, block("random", "none"))
    study = memory(search)
    carry_out(search, study, lambda params: [math.log10(params["generator.lr"] / BEST_RATE) ** 2])
    shares = asking.importances(study, search)["ar_val_loss"]
    assert shares["generator.lr"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)


def test_a_curve_that_never_came_is_said(tmp_path: Path) -> None:
    search = load(tmp_path, PRUNED_BLOCK)
    study = memory(search)
    asking.ask(search, study)
    said = _unseen(Round("", search, study), 0)
    assert said is not None
    assert "train_generator logged no train/loss at a multiple of 2 steps from step 4 on" in said
    asking.report(search, study, 0, 4, 1.0, STEPS)
    assert _unseen(Round("", search, study), 0) is None
