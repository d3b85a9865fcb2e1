"""Keys of a plug-in's section: in a sweep they work as the built-in ones."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gigatok import plugins
from orchestration.commands.upkeep.schema import schema
from orchestration.costs.cost import predict
from orchestration.launching.launched import LaunchRequest, parse_launch, record_launch, restored
from orchestration.plan.graph import Plan, make_plan
from orchestration.runs.state import Store
from orchestration.runs.studies import study_folder
from orchestration.sweep.definition import SWEEPS_DIR, Sweep, SweepError, load_sweep
from orchestration.sweep.settings.keys import trial_keys
from orchestration.tracking.params import trial_params
from tests.orchestration.test_from_outside import MODULE
from tests.restoring import restored_registries

KEY = "measure_brightness.gamma"


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Undo what a test registers."""
    monkeypatch.setattr(plugins, "LOADED", {})
    with restored_registries():
        yield


def load(folder: Path, body: str, *overrides: str) -> Sweep:
    (folder / "brightness.py").write_text(MODULE)
    sweep = folder / "bright.yaml"
    head = "question: q\nscale: smoke\nplugins: [./brightness.py]\nstages: [measure_brightness]"
    sweep.write_text(f"{head}\n{body}\n")
    sizes = [f"tokenizer.{part}=S" for part in ("encoder", "decoder") if part not in body]
    return load_sweep(sweep, overrides=[*sizes, *overrides])


def plan(folder: Path, body: str, *overrides: str) -> Plan:
    sweep = load(folder, body, *overrides)
    return make_plan(sweep, sweep.expansion)


def keys(planned: Plan) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for stage in planned.stages.values():
        found.setdefault(stage.stage, set()).add(stage.key)
    return found


def test_its_keys_serve_in_every_part_of_a_sweep(tmp_path: Path) -> None:
    sweep = load(
        tmp_path,
        f"axes: {{{KEY}: [1, 1.8, 2.2, 3], tokenizer.decoder: [S, B]}}\n"
        f"exclude: [{{{KEY}: 3, tokenizer.decoder: B}}]\n"
        f"where: [{KEY} > 1]\nderive: {{double: 2 * {KEY}}}\n"
        f"include: [{{tokenizer.decoder: S, tokenizer.lr: 0.1}}]",
    )
    trials = sweep.expansion.trials
    assert [trial.name for trial in trials if "lr" not in trial.axes] == [
        *("S-S gamma=1.8", "S-B gamma=1.8", "S-S gamma=2.2", "S-B gamma=2.2", "S-S gamma=3")
    ]
    assert [trial.derived["double"] for trial in trials] == [3.6, 3.6, 4.4, 4.4, 6.0]


def test_a_cell_that_lacks_the_key_has_its_default(tmp_path: Path) -> None:
    sweep = load(
        tmp_path,
        f"axes: {{tokenizer.decoder: [S]}}\n"
        f"include: [{{tokenizer.decoder: S, {KEY}: 2}}]\nderive: {{double: 2 * {KEY}}}",
    )
    assert [trial.axes[KEY] for trial in sweep.expansion.trials] == [1.0, 2]
    assert [trial.derived["double"] for trial in sweep.expansion.trials] == [2.0, 4.0]


def test_a_value_on_the_command_line_wins(tmp_path: Path) -> None:
    (trial,) = load(tmp_path, f"axes: {{{KEY}: [1, 2]}}", f"{KEY}=3").expansion.trials
    assert dict(trial.axes) == {KEY: 3, "seed": 0}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("set: {measure_brightness.gama: 2}", "did you mean 'measure_brightness.gamma'?"),
        (f"set: {{{KEY}: -1}}", "got -1; must be a number above 0"),
        (f"set: {{{KEY}: dark}}", "got 'dark'; must be a number above 0"),
        ("set: {measure_brightness: {gamma: 2}}", "is a group of keys; name one of them"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_line(
    tmp_path: Path, body: str, message: str
) -> None:
    with pytest.raises(SweepError) as error:
        load(tmp_path, body)
    assert "bright.yaml:5" in str(error.value)
    assert message in str(error.value)


def test_only_the_stage_that_reads_it_has_another_key(tmp_path: Path) -> None:
    plain, default, other = (
        keys(plan(tmp_path, body)) for body in ("", f"set: {{{KEY}: 1}}", f"set: {{{KEY}: 2.2}}")
    )
    assert plain == default
    assert {name for name in other if other[name] != plain[name]} == {"measure_brightness"}
    both = keys(plan(tmp_path, f"axes: {{{KEY}: [1, 2.2]}}"))
    assert both == {name: plain[name] | other[name] for name in plain}


def test_costs_follow_it(tmp_path: Path) -> None:
    planned = plan(tmp_path, f"axes: {{{KEY}: [1, 2]}}\nderive: {{flops: flops.total}}")
    costs = predict(planned)
    measured = [k for k, stage in planned.stages.items() if stage.stage == "measure_brightness"]
    assert [costs[key].flops for key in measured] == [1000, 2000]
    first, second = (trial.trial.derived["flops"] for trial in planned.trials)
    assert second - first == 1000


def test_the_record_of_a_launch_holds_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    planned = plan(tmp_path, f"axes: {{{KEY}: [1, 2.2]}}")
    record_launch(planned, store, LaunchRequest(sweep="bright.yaml", backend="local"))
    launched = parse_launch(study_folder(store, "bright") / f"{planned.key}.json")
    assert launched is not None
    again = restored(launched, store)
    assert again.trials == planned.trials
    assert again.stages == planned.stages


def test_trials_that_do_not_give_it_are_as_without_the_plugin(tmp_path: Path) -> None:
    (trial,) = load(tmp_path, "").expansion.trials
    assert not any(name.startswith("measure_brightness") for name in trial_params(trial.config))
    (trial,) = load(tmp_path, f"set: {{{KEY}: 2.2}}").expansion.trials
    assert trial_params(trial.config)[KEY] == "2.2"


def test_an_edited_file_replaces_its_section(tmp_path: Path) -> None:
    load(tmp_path, f"set: {{{KEY}: 2}}")
    (tmp_path / "brightness.py").write_text(MODULE.replace("gamma", "power"))
    with pytest.raises(SweepError, match="unknown key; keys of measure_brightness, nearest first"):
        load_sweep(tmp_path / "bright.yaml")
    assert KEY not in trial_keys()


def check(file: Path, sweep: dict[str, Any]) -> None:
    content = json.loads(file.read_text())
    jsonschema.Draft202012Validator(content).validate(sweep)


def test_editors_know_the_plugins_of_a_sweep(tmp_path: Path) -> None:
    right: dict[str, Any] = {
        "question": "q",
        "plugins": ["./brightness.py"],
        "set": {KEY: 2.2},
        "search": {"objectives": ["brightness"]},
        "stages": ["measure_brightness"],
    }
    # The shipped schema cannot know them: it must not call right what is wrong, nor the reverse.
    check(SWEEPS_DIR / "sweep.schema.json", right)
    load(tmp_path, "")
    schema([str(tmp_path / "bright.yaml")])
    written = tmp_path / "sweep.schema.json"
    check(written, right)
    for wrong in ({"set": {KEY: -1}}, {"stages": ["measure_brightnes"]}, {"sets": {}}):
        with pytest.raises(jsonschema.ValidationError):
            check(written, right | wrong)
    scale = {"trial": {"measure_brightness": {"gamma": 2}}}
    check(tmp_path / "scale.schema.json", scale)
