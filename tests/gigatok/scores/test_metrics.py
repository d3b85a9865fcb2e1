"""Metrics against closed forms, brute force and independent implementations."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from gigatok.scores.image_metrics import (
    KID_SCALE,
    codebook_perplexity,
    codebook_usage,
    inception_score,
    kid,
    psnr,
    ssim,
    ssim_reference,
    unigram_entropy,
)


def normal(count: int, channels: int, seed: int, mean: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(mean, 1, (count, channels)).astype(np.float32)


def kid_by_brute_force(a: np.ndarray, b: np.ndarray) -> float:
    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((np.dot(x.astype(np.float64), y) / len(x) + 1) ** 3)

    within_a = np.mean([kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    within_b = np.mean([kernel(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    return float(within_a + within_b - 2 * np.mean([kernel(x, y) for x in a for y in b]))


@pytest.mark.parametrize("counts", [(7, 11), (60, 53)])
def test_kid_is_the_mean_over_all_pairs(counts: tuple[int, int]) -> None:
    a, b = normal(counts[0], 5, 0), normal(counts[1], 5, 1, mean=0.4)
    assert kid(a, b)[0] == pytest.approx(KID_SCALE * kid_by_brute_force(a, b), rel=1e-9)


def test_kid_of_shifted_gaussians_has_its_closed_form() -> None:
    # In one dimension the kernel is sum_k C(3, k) x^k y^k, so MMD^2 compares three moments.
    shift = 0.5
    moments = shift, shift**2, shift**3 + 3 * shift
    expected = KID_SCALE * sum(c * m**2 for c, m in zip((3, 3, 1), moments, strict=True))
    value, error = kid(normal(3000, 1, 0), normal(3000, 1, 1, mean=shift))
    assert error < expected / 5
    assert abs(value - expected) < 4 * error


@pytest.mark.heavy
def test_kid_of_one_distribution_is_zero_on_average() -> None:
    values = [kid(normal(40, 6, 2 * i), normal(40, 6, 2 * i + 1))[0] for i in range(100)]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(len(values))


@pytest.mark.heavy
@pytest.mark.parametrize("mean", [0.0, 0.5])
def test_the_standard_error_of_kid_is_the_spread_over_resamples(mean: float) -> None:
    draws = [kid(normal(150, 4, 2 * i), normal(150, 4, 2 * i + 1, mean)) for i in range(120)]
    values, errors = np.array(draws).T
    assert 0.75 < np.median(errors) / values.std(ddof=1) < 1.35


def test_kid_needs_three_images() -> None:
    with pytest.raises(ValueError, match="at least 3 images in each set, got 2"):
        kid(normal(2, 4, 0), normal(9, 4, 0))


def constant(value: int, count: int = 2) -> np.ndarray:
    return np.full((count, 16, 16, 3), value, np.uint8)


def test_psnr_is_averaged_over_images() -> None:
    reference = constant(100)
    images = np.concatenate([constant(101, 1), constant(110, 1)])
    expected = (20 * math.log10(255) + 20 * math.log10(25.5)) / 2
    assert psnr(images, reference) == pytest.approx(expected)
    assert psnr(reference, reference) == math.inf


def test_ssim_of_constant_images_is_the_luminance_term() -> None:
    x, y = 50 / 255, 100 / 255
    expected = (2 * x * y + 1e-4) / (x**2 + y**2 + 1e-4)
    assert ssim(constant(50), constant(100)) == pytest.approx(expected, rel=1e-5)
    noise = np.random.default_rng(0).integers(256, size=(2, 16, 16, 3), dtype=np.uint8)
    assert ssim(noise, noise) == pytest.approx(1)


def test_ssim_needs_images_as_large_as_its_window() -> None:
    images = np.zeros((2, 16, 10, 3), np.uint8)
    with pytest.raises(ValueError, match="images of 10x16 pixels are smaller than the windows"):
        ssim(images, images)
    assert ssim_reference(images, images) == 1


def waves(height: int, width: int, count: int) -> np.ndarray:
    """Smooth images, of which the window's place matters."""
    one = 127 + 90 * np.sin(np.arange(height)[:, None] / 5 + np.arange(width) / 9)
    return np.broadcast_to(one[:, :, None], (count, height, width, 3))


def pairs_of_images() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    sets = {
        "one window": random.integers(0, 256, (4, 11, 11, 3)),
        "noise 16x16": random.integers(0, 256, (4, 16, 16, 3)),
        "waves 33x47": waves(33, 47, 3),
        "waves 256x256": waves(256, 256, 1),
    }
    noisy = {name: x + random.integers(-40, 41, x.shape) for name, x in sets.items()}
    return {name: (u8(x), u8(noisy[name])) for name, x in sets.items()}


def u8(pixels: np.ndarray) -> np.ndarray:
    return np.clip(pixels, 0, 255).astype(np.uint8)


PIQ = {
    "one window": 0.9559497012056928,
    "noise 16x16": 0.9503278810475467,
    "waves 33x47": 0.5823618348062002,
    "waves 256x256": 0.5771702852419299,
}
"""`piq.ssim` 0.8.0 of `pairs_of_images` as float64 (N, 3, H, W) in [0, 1], `data_range=1` and
`downsample=False`; written down, as piq needs torchvision."""


@pytest.mark.parametrize("name", PIQ)
def test_ssim_is_that_of_scikit_image_and_piq(name: str) -> None:
    x, y = pairs_of_images()[name]
    theirs = [
        structural_similarity(
            *pair,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=-1,
        )
        for pair in zip(x, y, strict=True)
    ]
    assert ssim(x, y) == pytest.approx(np.mean(theirs), abs=1e-12)
    assert ssim(x, y) == pytest.approx(PIQ[name], abs=1e-12)
    flat = [
        structural_similarity(*p, data_range=510, channel_axis=-1) for p in zip(x, y, strict=True)
    ]
    assert ssim_reference(x, y) == pytest.approx(np.mean(flat), abs=1e-12)


def test_pair_metrics_refuse_sets_that_do_not_pair() -> None:
    with pytest.raises(ValueError, match=r"\(2, 16, 16, 3\) and reference \(3, 16, 16, 3\)"):
        psnr(constant(1), constant(1, 3))


def test_code_statistics() -> None:
    counts = np.array([4, 4, 0, 0, 4, 4])
    assert codebook_usage(counts) == pytest.approx(4 / 6)
    assert unigram_entropy(counts) == pytest.approx(math.log(4))
    assert codebook_perplexity(counts) == pytest.approx(4)
    assert unigram_entropy(np.array([9, 0])) == 0
    with pytest.raises(ValueError, match="at least one token"):
        codebook_usage(np.zeros(3, np.int64))


def photos(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(256, size=(2, 12, 14, 3), dtype=np.uint8)


def ssim_by_windows(x: np.ndarray, y: np.ndarray) -> float:
    """scikit-image's definition, window by window: 7 x 7, unbiased, data range 2 on [0, 1]."""
    values = []
    x, y = x / 255, y / 255
    for image, row, column, channel in np.ndindex(len(x), x.shape[1] - 6, x.shape[2] - 6, 3):
        window = image, slice(row, row + 7), slice(column, column + 7), channel
        a, b = x[window].ravel(), y[window].ravel()
        (var_a, cov), (_, var_b) = np.cov(a, b)
        c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
        top = (2 * a.mean() * b.mean() + c1) * (2 * cov + c2)
        values.append(top / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (var_a + var_b + c2)))
    return float(np.mean(values))


def test_the_references_ssim_is_scikit_images_with_twice_the_range() -> None:
    x = photos(0)
    y = np.clip(x.astype(int) + np.random.default_rng(1).integers(-60, 61, x.shape), 0, 255)
    y = y.astype(np.uint8)
    assert ssim_reference(x, y) == pytest.approx(ssim_by_windows(x, y), rel=1e-9)
    assert ssim_reference(x, y) > ssim(x, y)
    assert ssim_reference(x, x) == pytest.approx(1)


def test_inception_score_of_certain_images_is_the_number_of_their_classes() -> None:
    # One-hot features times a large weight: each image is surely of one of five classes.
    features = np.eye(5, dtype=np.float32)[np.arange(40) % 5]
    assert inception_score(features, 200 * np.eye(5, dtype=np.float32)) == pytest.approx(5)
    assert inception_score(features, np.zeros((8, 5), np.float32)) == pytest.approx(1)


def test_inception_score_is_averaged_over_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gigatok.scores.image_metrics.SCORE_SPLIT", 20)
    classes = np.concatenate([np.zeros(20, int), np.arange(20) % 4])
    features = np.eye(4, dtype=np.float32)[classes]
    score = inception_score(features, 200 * np.eye(4, dtype=np.float32))
    assert score == pytest.approx((1 + 4) / 2)


def test_kid_of_constructed_sets() -> None:
    x = normal(60, 5, 0)
    assert kid(x, x, paired=True)[0] == pytest.approx(0, abs=1e-9)
    subset, disjoint = kid(x[:30], x)[0], kid(x + 20, x)[0]
    assert abs(subset) < KID_SCALE * 0.5
    assert disjoint > KID_SCALE * 1000


def test_kid_never_holds_a_whole_set_twice() -> None:
    features = np.zeros((3000, 64), np.float32)
    tracemalloc.start()
    kid(features, features)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 50 sums of each column; 2,048 images in float64; the kernel of a block with them, four times.
    # A copy of the set would be 1.5 MB more, the kernel of all pairs 72 MB.
    assert peak < 50 * 3000 * 8 + 2048 * 64 * 8 + 5 * 60 * 2048 * 8
