"""The shipped sweeps: each plans at every scale and runs at `smoke`."""

from __future__ import annotations

from pathlib import Path

import pytest

import analysis
from gigatok.stages import STAGES
from orchestration import Study
from orchestration.plan.graph import make_plan
from orchestration.runs.state import Store
from orchestration.study.launch import LaunchResult
from orchestration.sweep.definition import SWEEPS_DIR, expand, load_sweep

SWEEPS = sorted(path.stem for path in SWEEPS_DIR.glob("*.yaml"))
SEARCHES = [name for name in SWEEPS if load_sweep(name).search is not None]
SCALES = sorted(path.stem for path in (SWEEPS_DIR / "scales").glob("*.yaml"))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SWEEPS)
def test_plans(name: str, scale: str) -> None:
    sweep = load_sweep(name, scale)
    plan = make_plan(sweep, expand(sweep))
    assert len(plan.trials) > 1 or sweep.search is not None
    assert len({trial.key for trial in plan.trials}) == len(plan.trials)
    for stage in plan.stages.values():
        assert set(stage.inputs.values()) <= plan.stages.keys()


@pytest.mark.parametrize("name", SWEEPS)
def test_the_readme_lists_its_question_and_the_table_or_figure(name: str) -> None:
    sweep = load_sweep(name)
    assert sweep.question.endswith("?")
    assert sweep.paper.startswith(("Table ", "Figure ", "Figures ")) or sweep.paper == ""
    row = f"| `{name}` | {sweep.question} | {sweep.paper or 'none'} |"
    assert row in (SWEEPS_DIR / "README.md").read_text()


@pytest.mark.parametrize("name", SWEEPS)
def test_needs_no_download_at_smoke(name: str) -> None:
    for trial in expand(load_sweep(name, "smoke")).trials:
        config = trial.config
        assert config.data.name == "digits"
        assert config.tokenizer.teacher in ("pixels", "none")
        assert config.tokenizer.perceptual_weight == 0
        assert (config.evaluation.network, config.evaluation.lpips_network) == ("pixels", "none")


@pytest.mark.parametrize("scale", SCALES)
def test_variants_are_compared_at_equal_numbers_of_tokens(scale: str) -> None:
    trials = expand(load_sweep("tokenizer_1d_vs_2d", scale)).trials
    side = trials[0].config.data.image_size
    assert len({trial.config.tokenizer.tokens_per_image(side) for trial in trials}) == 1
    assert {trial.config.tokenizer.variant for trial in trials} == {"1d", "2d"}


@pytest.mark.parametrize("scale", ["micro", "mini"])
def test_durations_are_the_papers_fractions_of_the_recipe(scale: str) -> None:
    (recipe, *_) = expand(load_sweep("semantic_weight", scale)).trials
    trials = expand(load_sweep("training_duration", scale)).trials
    full = recipe.config.tokenizer.steps
    steps = sorted({trial.config.tokenizer.steps for trial in trials})
    assert steps == [full * tenths // 10 for tenths in (4, 6, 8, 10, 12)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all sweeps, so that what they share runs once."""
    return tmp_path_factory.mktemp("sweeps")


def launched(folder: Path, name: str) -> LaunchResult:
    """Run a sweep at `smoke`, in this process: a start of Python takes longer than a stage."""
    result = Study(name, "smoke", runs=folder / "runs").run(jobs=2)
    assert result.exit_code == 0
    return result


ALIKE = {
    *("encoder_vs_decoder", "semantic_layer", "semantic_weight", "tokenizer_scaling"),
    "training_duration",
}
"""Sweeps whose stages differ from those of `decoder_scaling` in numbers only, which takes minutes
to see again. All are planned by the tests above."""
RUN = [
    pytest.param(name, marks=[pytest.mark.exhaustive] if name in ALIKE else [])
    for name in sorted(set(SWEEPS) - set(SEARCHES))
]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_runs_at_smoke(name: str, workplace: Path) -> None:
    found = launched(workplace, name)
    sweep = load_sweep(name, "smoke")
    index = {stage: Store(workplace / "runs").index(stage) for stage in STAGES}
    for stage in make_plan(sweep, expand(sweep)).stages.values():
        assert index[stage.stage][stage.key].state() == "COMPLETE"
    figure = analysis.figure(analysis.load(name, found.uri))
    drawn, *_ = analysis.save(figure, workplace, ["png"])
    assert drawn.stat().st_size > 0


@pytest.mark.slow
def test_without_the_entropy_loss_most_codes_are_dead(workplace: Path) -> None:
    # Measured on two seeds: 1 code of 512 without, 8 to 11 at 0.005, 70 to 154 at 0.02.
    launched(workplace, "entropy_loss")
    sweep = load_sweep("entropy_loss", "smoke")
    index = Store(workplace / "runs").index("extract_codes")
    used: dict[float, float] = {}
    for trial in make_plan(sweep, expand(sweep)).trials:
        done = index[trial.stages["extract_codes"]].done()
        assert done is not None
        used[trial.trial.config.tokenizer.entropy_weight] = done.metrics["codebook_usage"]
    assert used[0.005] > 2 * used[0]
    assert used[0.02] > 10 * used[0]
