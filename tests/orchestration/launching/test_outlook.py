"""Claims before and after a launch: how likely seeds decide them, and what they decided."""

from __future__ import annotations

from pathlib import Path

from gigatok.claims.power import power
from gigatok.claims.verdicts import LEVEL
from orchestration.execution.progress import Progress, stage_spec, survey
from orchestration.forecast.devices import Machine
from orchestration.launching.claimed import record_claims
from orchestration.launching.launched import LaunchRequest, record_launch
from orchestration.launching.outlook import claim_lines, verdict_lines
from orchestration.plan.graph import make_plan
from orchestration.runs.holder import acquire
from orchestration.runs.stage_records import Done
from orchestration.runs.state import Store
from orchestration.sweep.definition import expand, load_sweep

SWEEP = """question: Does it?
scale: smoke
axes: {tokenizer.decoder: [S, B]}
set: {tokenizer.encoder: S, tokenizer.steps: STEPS}
seeds: SEEDS
stages: [evaluate_reconstruction]
claims:
  helps: psnr at tokenizer.decoder=B is higher than at S
  other: ssim at tokenizer.decoder=B is higher than at S
"""
GAINS = (0.5, 0.6, 0.7, 0.4)
"""PSNR of B above that of S, by seed: mean .55, standard deviation .129."""


def study(folder: Path, seeds: str = "[0, 1, 2, 3]", steps: int = 3) -> Progress:
    file = folder / "study.yaml"
    file.write_text(SWEEP.replace("SEEDS", seeds).replace("STEPS", str(steps)))
    sweep = load_sweep(file)
    return survey(make_plan(sweep, expand(sweep)), Store(folder / "runs"))


def score(progress: Progress) -> Progress:
    """Launch a study, and complete the stages that score, without any work."""
    plan, store = progress.plan, progress.store
    record_launch(plan, store, LaunchRequest(sweep=str(plan.sweep.path)))
    record_claims(progress)
    for trial in plan.trials:
        key = trial.stages["evaluate_reconstruction"]
        holder = acquire(store.create(stage_spec(plan.stages[key], progress)))
        assert holder is not None
        config = trial.trial.config
        gain = GAINS[config.seed] if config.tokenizer.decoder.name == "B" else 0.0
        scores = {"psnr": 20.0 + config.seed + gain}
        rest = {"artifacts": {}, "finished": 1.0, "seconds": 1.0, "attempt": 1}
        holder.complete(Done(metrics=scores, protocol={"psnr": "some way"}, **rest))
    return survey(plan, store)


def lines_of(progress: Progress) -> list[str]:
    return claim_lines(progress, lambda stage: Machine("CPU", 1, 1, 0, None, 1))


def test_without_earlier_results_nothing_is_foretold(tmp_path: Path) -> None:
    helps, other = lines_of(study(tmp_path))
    assert helps.startswith("claim helps: psnr at tokenizer.decoder=B is higher than at S; ")
    assert helps.endswith("no earlier results with two seeds tell how likely it is decided")
    assert "claim other" in other


def test_power_is_from_the_spread_of_earlier_launches(tmp_path: Path) -> None:
    score(study(tmp_path))
    # Another length of training is another plan, of which nothing has run.
    helps, other = lines_of(study(tmp_path, "[0, 1]", steps=4))
    # Two claims: each has half of the level. Four seeds are the fewest with a power of .8.
    two, three, four = (power(0.55, 0.1291, n, LEVEL / 2) for n in (2, 3, 4))
    assert three < 0.8 < four
    assert f"2 seeds decide it with probability {two:.0%}, 4 with {four:.0%}" in helps
    assert helps.endswith("if it is as launched at scale smoke: +0.550 dB")
    assert "no earlier results" in other


def test_results_of_the_plan_itself_come_first(tmp_path: Path) -> None:
    helps, _ = lines_of(score(study(tmp_path)))
    assert "4 seeds decide it with probability " in helps
    assert "if it is as so far: +0.550 dB" in helps


def test_verdicts_end_a_launch(tmp_path: Path) -> None:
    progress = score(study(tmp_path))
    helps, other, legend = verdict_lines(progress)
    assert helps.startswith("helps: supported, +")
    assert "Claimed: psnr at tokenizer.decoder=B is higher than at S (before any result " in helps
    assert "other: undecided," in other
    assert legend.startswith("2 claims; p is two-sided and corrected")


def test_one_seed_decides_nothing(tmp_path: Path) -> None:
    score(study(tmp_path))
    helps, _ = lines_of(study(tmp_path, "[0]", steps=4))
    assert helps.endswith("one seed decides nothing")


def test_a_sweep_without_claims_has_no_line(tmp_path: Path) -> None:
    file = tmp_path / "plain.yaml"
    file.write_text(SWEEP.partition("claims:")[0].replace("SEEDS", "[0]").replace("STEPS", "3"))
    sweep = load_sweep(file)
    progress = survey(make_plan(sweep, expand(sweep)), Store(tmp_path / "runs"))
    assert lines_of(progress) == verdict_lines(progress) == []
