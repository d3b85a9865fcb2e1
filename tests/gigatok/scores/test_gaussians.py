"""Streaming moments and the Fréchet distance against scipy, closed forms and whole batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg

from gigatok.scores.gaussians import Gaussian, Moments, frechet_distance


def normal(count: int, channels: int, seed: int, mean: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(mean, 1, (count, channels)).astype(np.float32)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(Gaussian.of(a), Gaussian.of(b))


def by_matrix_square_root(
    mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray
) -> float:
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    gap = np.square(mean_a - mean_b).sum()
    return float(gap + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(root))


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return x.mean(0, np.float64), np.cov(x, rowvar=False)


def test_frechet_agrees_with_scipys_matrix_square_root() -> None:
    mixing = np.random.default_rng(2).normal(size=(12, 12)).astype(np.float32)
    a, b = normal(300, 12, 0), normal(200, 12, 1, mean=0.3) @ mixing
    expected = by_matrix_square_root(*moments(a), *moments(b))
    assert distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_known_gaussians_agrees_with_scipy() -> None:
    random = np.random.default_rng(0)
    known = []
    for shift in (0.0, 0.5):
        mixing = random.normal(size=(20, 20))
        known.append((random.normal(shift, 1, 20), mixing @ mixing.T))
    ours = [Gaussian.from_covariance(*one) for one in known]
    expected = by_matrix_square_root(*known[0], *known[1])
    assert frechet_distance(*ours) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_diagonal_gaussians_has_its_closed_form() -> None:
    deviations = np.array([1.0, 2.0, 0.0]), np.array([3.0, 0.5, 1.0])
    a, b = (Gaussian.from_covariance(np.zeros(3), np.diag(d**2)) for d in deviations)
    expected = np.square(deviations[0] - deviations[1]).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_gaussians_with_known_moments() -> None:
    # Points +-s on each axis have covariance s^2 * 2 / (n - 1) times the identity, exactly.
    corners = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    a, b = 2 * corners, 5 * corners + np.float32([1, 0, 2])
    assert distance(a, b) == pytest.approx(5 + 3 * (5 - 2) ** 2 * 2 / 5, rel=1e-6)


def test_frechet_with_fewer_images_than_channels() -> None:
    a, b = normal(20, 64, 0), normal(30, 64, 1)
    assert distance(a, a) == pytest.approx(0, abs=1e-9)
    assert distance(a, a + 0.5) == pytest.approx(64 * 0.25, rel=1e-5)
    expected = by_matrix_square_root(*moments(a), *moments(b))
    assert distance(a, b) == pytest.approx(expected, rel=1e-3)


def test_a_covariance_needs_two_images() -> None:
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        Gaussian.of(normal(1, 4, 0))


def streamed(x: np.ndarray, sizes: list[int]) -> Moments:
    stream = Moments()
    for part in np.split(x, np.cumsum(sizes)[:-1]):
        stream.add(part)
    return stream


@pytest.mark.parametrize("sizes", [[500], [1] * 20 + [480], [100] * 5, [3, 400, 97]])
def test_streamed_moments_are_those_of_the_whole(sizes: list[int]) -> None:
    x = normal(500, 8, 0, mean=40.0) * np.float32(0.1)
    gaussian = streamed(x, sizes).gaussian()
    mean, covariance = moments(x)
    np.testing.assert_allclose(gaussian.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(gaussian.root.T @ gaussian.root, covariance, rtol=1e-8, atol=1e-12)


def test_merged_moments_are_those_of_the_union(tmp_path: Path) -> None:
    x = normal(300, 6, 0, mean=-3.0)
    first, second = streamed(x[:250], [50] * 5), streamed(x[250:], [50])
    second.save(tmp_path / "moments")
    first.merge(Moments.load(tmp_path / "moments"))
    merged, whole = first.gaussian(), Gaussian.of(x)
    assert first.count == 300
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(
        merged.root.T @ merged.root, whole.root.T @ whole.root, rtol=1e-9, atol=1e-12
    )


def test_what_is_held_does_not_grow_with_the_number_of_images() -> None:
    # At 2,048 channels and batches of 32: 4,129 rows of float64, 68 MB, for any number of images.
    stream = Moments()
    held = []
    for i in range(400):
        stream.add(normal(32, 40, i))
        held.append(stream.held())
    assert max(held) <= 2 * 40 + 33
    assert max(held[200:]) <= max(held[:200])


def test_a_gaussian_survives_its_file(tmp_path: Path) -> None:
    gaussian = Gaussian.of(normal(30, 5, 0))
    gaussian.save(tmp_path / "spatial.npz")
    assert frechet_distance(gaussian, Gaussian.load(tmp_path / "spatial.npz")) < 1e-12
