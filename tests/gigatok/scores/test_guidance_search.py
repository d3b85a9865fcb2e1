"""The search for the best guidance scale: which scales it scores, and that a kill changes none."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigatok.config import GuidanceConfig, TrialConfig
from gigatok.runtime.context import Interrupted, Ranks, Runtime, Scores
from gigatok.runtime.tracker import MemoryTracker, NullTracker
from gigatok.scores.guidance_search import ScoredScale, at_edge, best, next_scale, to_csv
from gigatok.stages import STAGES
from gigatok.stages.evaluate_generation import run as evaluate_generation
from gigatok.stages.search_guidance import run as search_guidance
from tests.gigatok.damages import DAMAGES
from tests.gigatok.process_pair import ProcessPair

pytestmark = pytest.mark.heavy


def search(config: GuidanceConfig, objective: Callable[[float], float]) -> list[ScoredScale]:
    """Run a search on a known objective, which stands in for both scores."""
    scored: list[ScoredScale] = []
    while (scale := next_scale(config, scored)) is not None:
        value = objective(scale)
        scored.append(ScoredScale(cfg_scale=scale, gfid=value, gkid=value))
    return scored


def scales(scored: list[ScoredScale]) -> list[float]:
    return [point.cfg_scale for point in scored]


GRID = GuidanceConfig(search="grid", low=1, high=5, coarse=9, refine=6)
CLIMB = GuidanceConfig(search="hill_climb", start=2.0, low=1, high=5)


def test_the_grid_is_refined_around_its_best() -> None:
    scored = search(GRID, lambda scale: (scale - 2.7) ** 2)
    assert scales(scored)[:9] == [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5]
    assert len(scored) == 15
    assert all(2 < scale < 3 for scale in scales(scored)[9:])
    # First in the upper half of the bracket, at the golden section of it.
    assert scales(scored)[9] == pytest.approx(2.5 + 0.382 * 0.5, abs=1e-3)
    assert best(GRID, scored).cfg_scale == pytest.approx(2.7, abs=0.02)


@given(st.floats(1, 5), st.floats(0.1, 3))
def test_any_valley_is_found_within_the_budget(bottom: float, power: float) -> None:
    scored = search(GRID, lambda scale: abs(scale - bottom) ** power)
    assert len(scored) == len(set(scales(scored))) <= 15
    assert all(1 <= scale <= 5 for scale in scales(scored))
    # An interval of .5 on both sides of the bottom, cut six times.
    assert best(GRID, scored).cfg_scale == pytest.approx(bottom, abs=0.1)


def test_a_best_at_the_end_of_the_grid_is_refined_inside() -> None:
    scored = search(GRID, lambda scale: -scale)
    assert best(GRID, scored).cfg_scale == 5
    assert all(4.5 < scale < 5 for scale in scales(scored)[9:])
    assert at_edge(GRID, 5)
    assert not at_edge(GRID, 1), "below no guidance there is nothing"
    assert at_edge(GRID.model_copy(update={"low": 1.5}), 1.5)


def test_the_published_hill_climb() -> None:
    # From 2: up, worse; down until worse again.
    scored = search(CLIMB, lambda scale: abs(scale - 1.5))
    assert scales(scored) == [2, 2.25, 1.75, 1.5, 1.25]
    assert best(CLIMB, scored).cfg_scale == 1.5
    # Up while it gets better; both neighbours of the best are known then.
    assert scales(search(CLIMB, lambda s: abs(s - 2.6))) == [2, 2.25, 2.5, 2.75]
    # Never below no guidance, nor above the space.
    assert scales(search(CLIMB, lambda scale: scale))[-1] == 1
    assert scales(search(CLIMB, lambda scale: -scale))[-1] == 5


def test_the_objective_decides_and_equals_go_to_the_smaller_scale() -> None:
    scored = [
        ScoredScale(cfg_scale=3, gfid=1, gkid=5),
        ScoredScale(cfg_scale=2, gfid=9, gkid=4),
        ScoredScale(cfg_scale=1, gfid=9, gkid=4),
    ]
    by_fid = GRID.model_copy(update={"objective": "gfid"})
    assert best(by_fid, scored).cfg_scale == 3
    assert best(GRID, scored).cfg_scale == 1


def test_the_curve_as_a_table() -> None:
    table = to_csv([ScoredScale(cfg_scale=1.5, gfid=2.0)])
    assert table == "cfg_scale,gfid,gkid,gkid_se\n1.5,2.0,,\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 3, "high": 2}, "low 3 must be below high 2"),
        ({"search": "hill_climb", "start": 6}, "start 6 must be from low 1 to high 5"),
    ],
)
def test_a_space_without_scales_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GuidanceConfig.model_validate(settings)


SIZE = {"width": 32, "layers": 1, "heads": 1}
SMALL_CNN = {"channels": 16, "multipliers": (1, 2), "resblocks": 1, "groups": 4}
TRIAL = TrialConfig.model_validate(
    {
        "data": {"name": "digits", "image_size": 16, "train_images": 64, "val_images": 32},
        "tokenizer": {
            **{"encoder": SIZE, "decoder": SIZE, "num_latent_tokens": 8, "codebook_size": 32},
            "cnn": {**SMALL_CNN, "z_channels": 32, "patch_size": 2, "adaptive_norm": False},
            **{"usage_window": 64, "perceptual_weight": 0, "semantic_weight": 0},
            **{"init": "fan_in", "codebook_init": "data", "augment": "none"},
            "dead_code_restart_every": 5,
            **{"steps": 40, "batch_size": 16, "lr": 2e-3},
        },
        "codes": {"flip": False},
        "generator": {"size": SIZE, "steps": 60, "batch_size": 32, "lr": 1e-2},
        "sampling": {"num_images": 20, "batch_size": 8, "cfg_scale": 2.0},
        "evaluation": {
            **{"num_images": 32, "network": "pixels", "resolution": 4},
            "lpips_network": "none",
        },
        "guidance": {"search": "grid", "coarse": 3, "refine": 2, "num_images": 12},
    }
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Everything that a search reads."""
    root, done = tmp_path_factory.mktemp("trained"), dict[str, Path]()
    for name in (
        "extract_reference_features",
        "train_tokenizer",
        "extract_codes",
        "train_generator",
    ):
        stage, runtime = STAGES[name], Runtime(root / "checkpoints" / name)
        stage.run(stage.read(TRIAL), done, root / name, NullTracker(), runtime)
        done[name] = root / name
    return done


def run(inputs: dict[str, Path], folder: Path, tracker: Any = None, **runtime: Any) -> Scores:
    config: Any = STAGES["search_guidance"].read(TRIAL)
    how = Runtime(folder / "checkpoints", **runtime)
    return search_guidance.run(config, inputs, folder / "out", tracker or NullTracker(), how)


def curve(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "out" / "guidance.csv").open()))


@pytest.fixture(scope="module")
def undisturbed(
    trained: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Scores, MemoryTracker]:
    folder, tracker = tmp_path_factory.mktemp("undisturbed"), MemoryTracker()
    return folder, run(trained, folder, tracker), tracker


def test_curve_choice_and_scores(undisturbed: tuple[Path, Scores, MemoryTracker]) -> None:
    folder, scores, tracker = undisturbed
    rows = curve(folder)
    assert [float(row["cfg_scale"]) for row in rows[:3]] == [1, 3, 5]
    assert len(rows) == 5
    lowest = min(rows, key=lambda row: float(row["gkid"]))
    assert scores.metrics["best_cfg_scale"] == float(lowest["cfg_scale"])
    assert set(scores.metrics) == {"best_cfg_scale", "gfid_best", "gkid_best", "gkid_best_se"}
    assert scores.protocol.keys() == scores.metrics.keys()
    assert "20 samples (constant guidance at its best scale)" in scores.protocol["gfid_best"]
    assert "gKID of 12 other samples" in scores.protocol["gfid_best"]
    for name in ("cfg_scale", "gfid", "gkid", "gkid_se"):
        logged = [(s, value) for key, s, value in tracker.points if key == f"guidance/{name}"]
        assert logged == [(i, float(row[name])) for i, row in enumerate(rows)]
    assert tracker.images["samples_at_best_guidance"].ndim == 3


def test_progress_is_that_of_the_whole_search(trained: dict[str, Path], tmp_path: Path) -> None:
    class Counting(NullTracker):
        seen: ClassVar[list[tuple[int, int]]] = []

        def progress(self, done: int, total: int, unit: str, **values: float) -> None:
            self.seen.append((done, total))

    run(trained, tmp_path, Counting())
    drawn = [8, 12, 20, 24, 32, 36, 44, 48, 56, 60, 68, 76, 80]  # five scales and the report
    assert Counting.seen == [(done, 5 * 12 + 20) for done in drawn]


def test_the_report_is_of_the_samples_of_evaluate_generation(
    trained: dict[str, Path], undisturbed: tuple[Path, Scores, MemoryTracker], tmp_path: Path
) -> None:
    """At the same scale both stages say the same; the samples that decided are others."""
    _, scores, tracker = undisturbed
    scale = scores.metrics["best_cfg_scale"]
    sampling = TRIAL.sampling.model_copy(update={"cfg_scale": scale})
    config: Any = STAGES["evaluate_generation"].read(
        TRIAL.model_copy(update={"sampling": sampling})
    )
    fixed = evaluate_generation.run(
        config, trained, tmp_path / "out", NullTracker(), Runtime(tmp_path / "checkpoints")
    )
    for name in ("gfid", "gkid"):
        assert scores.metrics[f"{name}_best"] == fixed.metrics[name]
    drawn = {value for key, _, value in tracker.points if key == "guidance/gfid"}
    assert fixed.metrics["gfid"] not in drawn


def stop_after(batches: int) -> Callable[[], bool]:
    seen = iter(range(batches))
    return lambda: next(seen, None) is None


@pytest.mark.parametrize("batches", [0, 1, 4, 9, 11])
def test_a_search_that_was_stopped_goes_on_where_it_was(
    trained: dict[str, Path],
    undisturbed: tuple[Path, Scores, MemoryTracker],
    tmp_path: Path,
    batches: int,
) -> None:
    """12 samples in batches of 8 are two batches a scale, and the report has three."""
    with pytest.raises(Interrupted, match="drawn anew"):
        run(trained, tmp_path, should_stop=stop_after(batches))
    file = tmp_path / "checkpoints" / "scored.json"
    kept = json.loads(file.read_text())["content"] if file.exists() else []
    assert len(kept) == batches // 2
    drawn = MemoryTracker()
    assert run(trained, tmp_path, drawn) == undisturbed[1]
    assert curve(tmp_path) == curve(undisturbed[0])
    steps = [step for key, step, _ in drawn.points if key == "guidance/gkid"]
    assert steps == list(range(batches // 2, 5)), "no scale is scored twice"


@pytest.mark.parametrize("damage", ["flipped", "empty", "a folder"])
def test_a_search_whose_record_is_damaged_begins_anew_and_ends_the_same(
    trained: dict[str, Path],
    undisturbed: tuple[Path, Scores, MemoryTracker],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    with pytest.raises(Interrupted, match="drawn anew"):
        run(trained, tmp_path, should_stop=stop_after(5))
    DAMAGES[damage](tmp_path / "checkpoints" / "scored.json")
    assert run(trained, tmp_path) == undisturbed[1]
    assert curve(tmp_path) == curve(undisturbed[0])
    assert any("begins anew" in message for message in caplog.messages)


def _search_in_process(inputs: dict[str, Path], folder: Path) -> None:
    run(inputs, folder)


@pytest.mark.parametrize("kept", [1, 3])
def test_a_search_that_was_killed_ends_the_same(
    trained: dict[str, Path],
    undisturbed: tuple[Path, Scores, MemoryTracker],
    tmp_path: Path,
    kept: int,
) -> None:
    process = get_context("spawn").Process(target=_search_in_process, args=(trained, tmp_path))
    process.start()
    file = tmp_path / "checkpoints" / "scored.json"
    deadline = time.monotonic() + 120
    while not file.is_file() or file.read_text().count("cfg_scale") < kept:
        assert process.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert run(trained, tmp_path) == undisturbed[1]
    assert curve(tmp_path) == curve(undisturbed[0])


def _on_rank(ranks: Ranks, inputs: dict[str, Path], folder: Path) -> dict[str, float]:
    return dict(run(inputs, folder, ranks=ranks).metrics)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(
    pair: ProcessPair,
    trained: dict[str, Path],
    undisturbed: tuple[Path, Scores, MemoryTracker],
    tmp_path: Path,
) -> None:
    first, second = pair.run(_on_rank, trained, tmp_path)
    assert second == {}
    assert first == pytest.approx(dict(undisturbed[1].metrics), rel=1e-6)


def test_scales_differ_on_the_same_noise(
    undisturbed: tuple[Path, Scores, MemoryTracker],
) -> None:
    """Guidance does something: the curve is not flat."""
    assert len({row["gfid"] for row in curve(undisturbed[0])}) == 5


def test_a_fixed_scale_does_not_change_what_is_searched() -> None:
    read = STAGES["search_guidance"].read
    other = TRIAL.sampling.model_copy(update={"cfg_scale": 3.0})
    assert read(TRIAL) == read(TRIAL.model_copy(update={"sampling": other}))


def test_it_is_off_unless_asked_for() -> None:
    off = TRIAL.model_copy(update={"guidance": GuidanceConfig()})
    assert not STAGES["search_guidance"].applies(off)
    assert STAGES["search_guidance"].applies(TRIAL)
