"""Scores of image and code sets: every value comes with what was measured on what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from gigatok.config import CodeShape, ProbeConfig, SamplingConfig, SplitConfig
from gigatok.runtime.context import Interrupted, Runtime
from gigatok.runtime.tracker import MemoryTracker
from gigatok.scores import image_metrics
from gigatok.scores.feature_sets import FeatureSet
from gigatok.scores.probe import ProbeData, probe_rate, train_probe
from gigatok.scores.scoring import (
    ImageScores,
    codebook_scores,
    codes_by_uses,
    describe,
    distribution_scores,
)
from gigatok.stages.evaluate_generation.run import guidance
from gigatok.stages.evaluate_reconstruction.spec import EVALUATE_RECONSTRUCTION
from tests.orchestration.plan.pins import plan


def features(seed: int, count: int = 200, shift: float = 0.0) -> image_metrics.Features:
    random = np.random.default_rng(seed)
    return (random.standard_normal((count, 8)) + shift).astype(np.float32)


def test_a_set_reconstructed_exactly_has_zero_kid() -> None:
    x = features(0)
    assert image_metrics.kid(x, x, paired=True)[0] == pytest.approx(0, abs=1e-9)
    assert (
        image_metrics.kid(x, x)[0] < -1
    )  # the pairs bias the cross term, which `paired` leaves out


def test_paired_kid_agrees_with_the_sum_over_all_other_pairs() -> None:
    x, y = features(1, 7), features(2, 7, shift=0.5)

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 8 + 1) ** 3)

    others = [(i, j) for i in range(7) for j in range(7) if i != j]
    total = sum(
        kernel(x[i], x[j]) + kernel(y[i], y[j]) - 2 * kernel(x[i], y[j]) for i, j in others
    )
    assert image_metrics.kid(x, y, paired=True)[0] == pytest.approx(1000 * total / 42, rel=1e-5)


def test_paired_sets_must_be_of_one_size() -> None:
    with pytest.raises(ValueError, match="paired sets differ: 5 and 6 images"):
        image_metrics.kid(features(0, 5), features(0, 6), paired=True)


def test_distribution_scores_name_their_protocol() -> None:
    pair = [FeatureSet(features(0), None), FeatureSet(features(1, shift=1.0), None)]
    scores = distribution_scores("g", *pair, "net, 200 vs 200")
    assert scores.metrics.keys() == {"gfid", "gkid", "gkid_se"}
    assert scores.protocol["gfid"] == "net, 200 vs 200"
    kid = "unbiased cubic MMD² of all pairs in float64, jackknife s.e. of at most 50 blocks"
    assert scores.protocol["gkid"] == f"net, 200 vs 200, {kid}"
    assert scores.protocol["gsfid"].startswith("not measured: ")
    assert scores.metrics["gfid"] == pytest.approx(8, rel=0.2)


def test_image_scores_do_not_depend_on_the_batches() -> None:
    random = np.random.default_rng(0)
    originals = random.integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
    shifted = np.clip(originals.astype(int) + random.integers(-9, 9, originals.shape), 0, 255)
    noisy = shifted.astype(np.uint8)
    whole, batched = ImageScores(), ImageScores()
    whole.add(noisy, originals)
    for start in range(0, 10, 3):
        batched.add(noisy[start : start + 3], originals[start : start + 3])
    assert batched.result("x").metrics == pytest.approx(whole.result("x").metrics)
    assert whole.result("10 images").protocol["psnr"] == "10 images, uint8"


def test_the_protocol_of_paired_kid_names_the_pairs_that_it_leaves_out() -> None:
    pair = [FeatureSet(features(0), None), FeatureSet(features(1), None)]
    protocol = distribution_scores("r", *pair, "net", paired=True).protocol["rkid"]
    assert "all pairs but those of an image with its own original" in protocol


def test_images_smaller_than_a_window_have_no_ssim() -> None:
    small, large = (np.zeros((2, side, side, 3), np.uint8) for side in (8, 16))
    scores = ImageScores()
    for images in (large, small):
        scores.add(images + 1, images)
    found = scores.result("4 images")
    assert found.metrics.keys() == {"psnr", "ssim_reference"}
    reason = "not measured: its windows have 11 pixels, the smallest image 8"
    assert found.protocol["ssim"] == reason


@pytest.mark.parametrize(
    ("side", "absent"), [(16, set()), (8, {"ssim"}), (4, {"ssim", "ssim_reference"})]
)
def test_the_stage_names_the_scores_that_images_of_its_size_have(
    side: int, absent: set[str]
) -> None:
    trial = plan().trials[0].trial.config
    data = trial.data.model_copy(update={"image_size": side})
    found = EVALUATE_RECONSTRUCTION.scores(trial.model_copy(update={"data": data}))
    assert {"ssim", "ssim_reference"} - set(found) == absent


def test_histogram_of_code_uses_counts_every_code_once() -> None:
    codes = torch.tensor([[0, 1, 1, 2, 2, 2], [2, 3, 2, 2, 2, 2]])  # 1, 2, 8, 1 uses; 4 of none
    assert codes_by_uses(codes, CodeShape(8, 2)) == [(0, 4), (1, 2), (2, 1), (4, 0), (8, 1)]


def test_codebook_scores_of_a_known_set() -> None:
    codes = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1]], dtype=torch.int32)
    scores = codebook_scores(codes, CodeShape(8, 2), images="2 images")
    assert scores.metrics["codebook_usage"] == 0.25
    assert scores.metrics["codebook_perplexity"] == pytest.approx(2.0)


def test_sets_are_described_with_data_and_size() -> None:
    split = SplitConfig(name="cifar10", split="val", image_size=32, images=256)
    assert describe(split) == "256 val images of cifar10@32"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cfg_scale": 1.0}, "no guidance"),
        ({"cfg_scale": 2.0}, "constant guidance 2"),
        ({"cfg_scale": 2.0, "cfg_schedule": "step"}, "step guidance 2 from 0.18"),
        ({"top_k": 5, "top_p": 0.9}, "constant guidance 1.5, top-k 5, top-p 0.9"),
        ({"temperature": 0.5}, "constant guidance 1.5, temperature 0.5"),
    ],
)
def test_guidance_in_words(settings: dict[str, object], words: str) -> None:
    config = SamplingConfig.model_validate({"num_images": 8, **settings})
    assert guidance(config) == words


def separable(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (count,), generator=random)
    noise = torch.randn(count, 16, generator=random)
    return noise + 3 * torch.eye(4).repeat(1, 4)[labels], labels


def train_on(
    train: torch.Tensor,
    labels: torch.Tensor,
    val: torch.Tensor,
    val_labels: torch.Tensor,
    config: ProbeConfig,
    tracker: MemoryTracker,
    should_stop: Callable[[], bool] = lambda: False,
) -> float:
    data = ProbeData(
        lambda view, batch: train[None][view, batch], 1, labels, val, val_labels, num_classes=4
    )
    runtime = Runtime(Path("unused"), should_stop=should_stop)
    return train_probe(data, config, 0, tracker, runtime)


def test_a_probe_stops_between_epochs() -> None:
    train, labels = separable(0, 64)
    tracker, answers = MemoryTracker(), iter([False, False, True])
    config = ProbeConfig(epochs=60, lr=12.8, batch_size=64, warmup_epochs=2)
    with pytest.raises(Interrupted):
        train_on(train, labels, train, labels, config, tracker, lambda: next(answers))
    assert len(tracker.points) == 2


@pytest.mark.heavy
def test_probe_learns_what_is_linearly_there_and_logs_every_epoch() -> None:
    train, labels = separable(0, 513)  # a last batch of one image must not break it
    val, val_labels = separable(1, 200)
    config = ProbeConfig(epochs=60, lr=12.8, batch_size=64, warmup_epochs=2)
    tracker = MemoryTracker()
    accuracy = train_on(train, labels, val, val_labels, config, tracker)
    assert accuracy > 0.95
    assert len(tracker.points) == 60
    random = torch.Generator().manual_seed(2)
    noise, noise_val = (
        torch.randn(1, 513, 16, generator=random),
        torch.randn(200, 16, generator=random),
    )
    chance = train_on(noise[0], labels, noise_val, val_labels, config, tracker)
    assert chance < 0.4  # one in four, and nothing to learn


def test_the_fitted_probe_is_scikit_learns_logistic_regression() -> None:
    (train, labels), (val, val_labels) = separable(0, 300), separable(1, 200)
    # Classes that can nearly be told apart, and channels of other sizes, which are normalised.
    scales = torch.logspace(-0.5, 2, 16)
    tracker, config = MemoryTracker(), ProbeConfig(method="lbfgs")
    found = train_on(train * scales, labels, val * scales, val_labels, config, tracker)
    mean, deviation = train.mean(0), train.std(0, unbiased=False)
    theirs = LogisticRegression(tol=1e-8, max_iter=5000)
    theirs.fit((train - mean) / deviation, labels)
    assert found == pytest.approx(theirs.score((val - mean) / deviation, val_labels))
    probabilities = theirs.predict_proba((train - mean) / deviation)
    loss = -np.log(probabilities[range(300), labels]).mean()
    loss += np.square(theirs.coef_).sum() / 600
    assert tracker.points[-1][2] == pytest.approx(loss, rel=1e-4)


def test_a_fit_takes_all_views_and_stops_when_it_is_asked_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gigatok.scores.probe._ROUND", 1)  # it would be at its end after one
    train, labels = separable(0, 64)
    seen: list[int] = []

    def read(view: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        seen.extend(view.unique().tolist())
        return train[batch] + 0.1 * view[:, None]

    data = ProbeData(read, 3, labels, train, labels, num_classes=4)
    config, answers = ProbeConfig(method="lbfgs"), iter([False, True])
    runtime = Runtime(Path("unused"), should_stop=lambda: next(answers))
    with pytest.raises(Interrupted):
        train_probe(data, config, 0, MemoryTracker(), runtime)
    assert seen == [0, 1, 2]


def test_settings_of_the_references_recipe_are_no_identity_of_a_fit() -> None:
    fit = ProbeConfig(method="lbfgs")
    assert fit.identity == fit.model_copy(update={"epochs": 7, "lr": 2.0}).identity
    assert fit.identity != ProbeConfig().identity
    with pytest.raises(ValueError, match="needs features that stay"):
        ProbeConfig(method="lbfgs", reference_dropout_quirk=True)


def test_probe_rate_warms_up_and_scales_with_the_batch() -> None:
    config = ProbeConfig(epochs=30, lr=0.1, batch_size=512, warmup_epochs=10)
    assert probe_rate(config, 5) == pytest.approx(0.1)
    assert probe_rate(config, 10) == pytest.approx(0.2)
    assert probe_rate(config, 30) == pytest.approx(0)
