"""Precision and recall on sets whose answer is known, and against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from gigatok.scores import manifold
from gigatok.scores.manifold import precision_recall


def normal(count: int, seed: int, mean: float = 0.0, channels: int = 6) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(mean, 1, (count, channels)).astype(np.float32)


def test_identical_sets() -> None:
    x = normal(50, 0)
    assert precision_recall(x, x) == (1, 1)
    assert precision_recall(x[::-1], x) == (1, 1)


def test_equal_points_are_within_balls_of_no_size() -> None:
    x = np.full((10, 4), np.float32(0.1)) * np.float32(3)
    assert precision_recall(x, x) == (1, 1)


def test_disjoint_sets() -> None:
    assert precision_recall(normal(50, 0), normal(40, 1, mean=100.0)) == (0, 0)


def test_a_subset_is_precise_and_recalls_its_part() -> None:
    # Two clusters far apart: samples from one of them cover no image of the other.
    near, far = normal(60, 0), normal(20, 1, mean=100.0)
    reference = np.concatenate([near, far])
    precision, recall = precision_recall(near[:30], reference)
    assert precision == 1
    assert 0.5 * 60 / 80 < recall <= 60 / 80
    precision, recall = precision_recall(reference, near)
    assert precision <= 60 / 80
    assert recall == 1


def test_points_on_a_line() -> None:
    # Balls of 0, 1, 2, 3, 4 reach 3, 2, 2, 2, 3: to the third neighbour.
    line = np.arange(5, dtype=np.float32)[:, None]
    samples = np.array([[7.0], [7.001], [-3.0], [-3.001]], np.float32)
    precision, recall = precision_recall(samples, line)
    assert precision == 0.5
    # Each sample's third neighbour is on the other side, 10 away: both balls hold all of the line.
    assert recall == 1


def by_definition(samples: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.linalg.norm(a[:, None].astype(float) - b[None], axis=-1)

    def covered(points: np.ndarray, centres: np.ndarray) -> float:
        radii = np.sort(distances(centres, centres), axis=1)[:, 3]
        return float((distances(points, centres) <= radii).any(axis=1).mean())

    return covered(samples, reference), covered(reference, samples)


@pytest.mark.parametrize("block", [7, 64, 2048])
def test_blocks_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifold, "_BLOCK", block)
    samples, reference = normal(70, 0, mean=0.5), normal(90, 1)
    expected = by_definition(samples, reference)
    assert 0.1 < min(expected) < 1
    assert precision_recall(samples, reference) == pytest.approx(expected, abs=1e-12)


def test_sets_without_a_third_neighbour_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 images in each set, got 3"):
        precision_recall(normal(3, 0), normal(9, 1))
