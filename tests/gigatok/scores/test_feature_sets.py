"""Features of streams and of reference files, and the scores made of them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from gigatok.files.hashes import sha256_of
from gigatok.models.frozen.features import FeatureNetwork, build_feature_network
from gigatok.models.frozen.inception import CLASSES, FEATURES, Inception, load_classifier
from gigatok.scores.feature_sets import FeatureSet, FeatureStream
from gigatok.scores.gaussians import Gaussian, frechet_distance
from gigatok.scores.image_metrics import inception_score
from gigatok.scores.reference_statistics import load_reference
from gigatok.scores.scoring import (
    ImageScores,
    distribution_scores,
    inception_scores,
    join,
    manifold_scores,
)

VARIABLE = "GIGATOK_ADM_IMAGENET256"


def _split_channels(images: Tensor) -> tuple[Tensor, Tensor]:
    """Means per channel, and the red corner pixels, of (B, 3, H, W)."""
    x = images.float()
    return x.mean(dim=(2, 3)), x[:, 0, :2, :2].flatten(1)


NETWORK = FeatureNetwork("fake", _split_channels)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(256, size=(count, 6, 6, 3), dtype=np.uint8)


def streamed(images: np.ndarray, size: int) -> FeatureSet:
    stream = FeatureStream(NETWORK, len(images))
    for start in range(0, len(images), size):
        stream.add(images[start : start + size])
    return stream.result()


def test_batches_come_out_in_order_and_change_nothing() -> None:
    images = pictures(150)
    whole, pieces = streamed(images, 150), streamed(images, 47)
    np.testing.assert_allclose(whole.pool, images.mean(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(whole.pool, pieces.pool)
    assert whole.spatial is not None
    assert pieces.spatial is not None
    assert frechet_distance(whole.spatial, pieces.spatial) == pytest.approx(0, abs=1e-6)
    corners = images[:, :2, :2, 0].reshape(150, -1)
    np.testing.assert_allclose(whole.spatial.mean, corners.mean(0))


def test_a_set_that_is_not_complete_is_not_used() -> None:
    stream = FeatureStream(NETWORK, 10)
    stream.add(pictures(9))
    with pytest.raises(AssertionError, match="9 of 10 images"):
        stream.result()


def test_a_saved_set_is_mapped_into_memory(tmp_path: Path) -> None:
    features = streamed(pictures(20), 8)
    features.save(tmp_path)
    loaded = FeatureSet.load(tmp_path)
    assert isinstance(loaded.pool, np.memmap)
    np.testing.assert_array_equal(loaded.pool, features.pool)
    assert loaded.spatial is not None
    FeatureSet(features.pool, None).save(tmp_path / "without")
    assert FeatureSet.load(tmp_path / "without").spatial is None


def wide(images: Tensor) -> tuple[Tensor, Tensor]:
    """64 channels of either kind."""
    x = images.flatten(1)[:, :64].float()
    return x, x


def peaks_of(count: int) -> tuple[int, int]:
    """Bytes at most held by a stream of so many images, and then by their scores."""
    images = np.zeros((count, 8, 8, 3), np.uint8)
    tracemalloc.start()
    stream = FeatureStream(FeatureNetwork("wide", wide), count)
    for start in range(0, count, 64):
        stream.add(images[start : start + 64])
    features = stream.result()
    streaming = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    held = tracemalloc.get_traced_memory()[0]
    distribution_scores("g", features, features, "")
    scoring = tracemalloc.get_traced_memory()[1] - held
    tracemalloc.stop()
    return streaming, scoring


@pytest.mark.heavy
def test_fifty_thousand_images_fit_into_two_gibibytes() -> None:
    """Bytes per image are measured at 64 channels, then taken to 2,048 and 50,000 images."""
    (streaming, scoring), (more_streaming, more_scoring) = peaks_of(2000), peaks_of(4000)
    per_channel = (more_streaming - streaming) / 2000 / 64
    assert per_channel == pytest.approx(4, rel=0.05)
    # Scores hold 50 sums of each image, and a fiftieth of the images: against 2,048 others at a
    # time, and once for each channel.
    per_image = (more_scoring - scoring) / 2000 + FEATURES * 8 / 50
    # Whatever the number of images: moments of both kinds, one being compressed; a part of a set.
    fixed = (3 * 2 * FEATURES + 2 * 2048) * FEATURES * 8
    assert 50_000 * (2 * per_channel * FEATURES + per_image) + fixed < 2 * 2**30


def test_distances_of_streams_are_those_of_scipy() -> None:
    first, second = pictures(90, 1), pictures(80, 2) // 2
    scores = distribution_scores("r", streamed(first, 32), streamed(second, 32), "protocol")
    corners = [x[:, :2, :2, 0].reshape(len(x), -1).astype(float) for x in (first, second)]
    cov = [np.cov(x, rowvar=False) for x in corners]
    gap = np.square(corners[0].mean(0) - corners[1].mean(0)).sum()
    root = scipy.linalg.sqrtm(cov[0] @ cov[1]).real
    expected = gap + np.trace(cov[0] + cov[1] - 2 * root)
    assert scores.metrics["rsfid"] == pytest.approx(expected, rel=1e-6)
    assert set(scores.metrics) == {"rfid", "rsfid", "rkid", "rkid_se"}
    assert scores.protocol["rsfid"] == "protocol, first 7 channels of mixed_6"


def test_what_cannot_be_measured_is_absent_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GIGATOK_INCEPTION_CLASSIFIER", raising=False)
    features = streamed(pictures(20), 8)
    statistics = FeatureSet(None, None, features.pooled_gaussian())
    named = FeatureNetwork("inception-2015@299", _split_channels)
    scores = join(
        distribution_scores("g", features, statistics, "protocol"),
        manifold_scores(features, statistics, "protocol"),
        inception_scores(features, named),
    )
    assert set(scores.metrics) == {"gfid"}
    assert scores.metrics["gfid"] == pytest.approx(0, abs=1e-6)
    reasons = {name: text for name, text in scores.protocol.items() if name != "gfid"}
    assert set(reasons) == {"gsfid", "gkid", "precision", "recall", "inception_score"}
    assert all(text.startswith("not measured: ") for text in reasons.values())
    assert "GIGATOK_INCEPTION_CLASSIFIER" in reasons["inception_score"]


def test_pair_scores_are_means_over_images_not_over_batches() -> None:
    rng = np.random.default_rng(0)
    originals = rng.integers(256, size=(5, 16, 16, 3), dtype=np.uint8)
    changed = originals ^ rng.integers(64, size=originals.shape, dtype=np.uint8)
    scores = []
    for size in (5, 2):
        pairs = ImageScores()
        for start in range(0, 5, size):
            pairs.add(changed[start : start + size], originals[start : start + size])
        scores.append(pairs.result("5 images"))
    assert scores[0].metrics == pytest.approx(scores[1].metrics, rel=1e-12)
    assert scores[0].protocol["psnr"] == "5 images, uint8"
    assert scores[0].protocol["ssim"].startswith("5 images, uint8, each RGB channel")
    assert scores[0].metrics["ssim_reference"] > scores[0].metrics["ssim"]


def write_reference(path: Path, images: np.ndarray | None, *, statistics: bool) -> FeatureSet:
    """An ADM file; the statistics are those of twice as many images."""
    more = streamed(pictures(60, 9), 32)
    arrays = {} if images is None else {"arr_0": images, "arr_1": np.arange(len(images))}
    if statistics:
        spatial = more.spatial
        assert spatial is not None
        pooled = more.pooled_gaussian()
        arrays |= {"mu": pooled.mean, "sigma": pooled.root.T @ pooled.root}
        arrays |= {"mu_s": spatial.mean, "sigma_s": spatial.root.T @ spatial.root}
    np.savez(path, **arrays)
    return more


@pytest.fixture
def reference_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "VIRTUAL_imagenet256_labeled.npz"
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def test_statistics_of_the_file_go_before_those_of_its_images(reference_file: Path) -> None:
    images = pictures(300, 3)
    more = write_reference(reference_file, images, statistics=True)
    reference = load_reference("adm_imagenet256", NETWORK)
    assert reference.name == f"adm_imagenet256 (sha256 {sha256_of(reference_file)[:8]})"
    found = reference.features
    np.testing.assert_array_equal(found.pool, streamed(images, 32).pool)
    for ours, theirs in (
        (found.pooled_gaussian(), more.pooled_gaussian()),
        (found.spatial, more.spatial),
    ):
        assert ours is not None
        assert theirs is not None
        assert frechet_distance(ours, theirs) == pytest.approx(0, abs=1e-5)


def test_a_file_of_images_alone_and_one_of_statistics_alone(reference_file: Path) -> None:
    images = pictures(50, 3)
    write_reference(reference_file, images, statistics=False)
    found, expected = load_reference("adm_imagenet256", NETWORK).features, streamed(images, 32)
    assert found.spatial is not None
    assert expected.spatial is not None
    assert frechet_distance(found.spatial, expected.spatial) == pytest.approx(0, abs=1e-6)
    more = write_reference(reference_file, None, statistics=True)
    alone = load_reference("adm_imagenet256", NETWORK).features
    assert alone.pool is None
    np.testing.assert_allclose(alone.pooled_gaussian().mean, more.pooled_gaussian().mean)


def test_reference_files_that_will_not_do(
    reference_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(reference_file, pictures=pictures(3))
    with pytest.raises(ValueError, match=r"holds pictures; reference statistics have arr_0"):
        load_reference("adm_imagenet256", NETWORK)
    np.savez(reference_file, arr_0=np.zeros((3, 6, 6), np.uint8))
    with pytest.raises(
        ValueError, match=r"arr_0 is uint8 \(3, 6, 6\), expected uint8 \(N, H, W, 3\)"
    ):
        load_reference("adm_imagenet256", NETWORK)
    np.savez(reference_file, arr_0=pictures(5), mu=np.zeros(9), sigma=np.eye(9))
    with pytest.raises(ValueError, match=r"pooled statistics have 9 channels, fake has 3"):
        load_reference("adm_imagenet256", NETWORK)
    np.savez(reference_file, mu=np.zeros(9), sigma=np.eye(9))  # without images as well
    with pytest.raises(ValueError, match=r"pooled statistics have 9 channels, fake has 3"):
        load_reference("adm_imagenet256", NETWORK)
    np.save(reference_file.with_suffix(".npy"), np.zeros(3))
    reference_file.with_suffix(".npy").rename(reference_file)
    with pytest.raises(
        ValueError, match=rf"\({VARIABLE}\) holds no .* it is no .npz file but a single array"
    ):
        load_reference("adm_imagenet256", NETWORK)
    reference_file.write_bytes(b"no statistics")
    with pytest.raises(ValueError, match=rf"\({VARIABLE}\) holds no reference statistics: "):
        load_reference("adm_imagenet256", NETWORK)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ValueError, match=rf"needs {VARIABLE}: .*or take evaluation.reference val"):
        load_reference("adm_imagenet256", NETWORK)


GOOD = {"mu": np.zeros(3), "sigma": np.eye(3)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"sigma": np.where(np.eye(3) > 0, np.nan, 0)}, "mu or sigma holds values that are not f"),
        ({"mu": np.array([0, 0, np.inf])}, "mu or sigma holds values that are not finite"),
        ({"sigma": np.ones(3)}, r"mu is of shape \(3,\) and sigma of \(3,\), expected \(D,\)"),
        ({"mu": np.zeros((1, 3))}, r"mu is of shape \(1, 3\)"),
        ({"sigma": np.triu(np.ones((3, 3)))}, "sigma is not symmetric"),
        ({"sigma": -np.eye(3)}, "a covariance has no negative variances, this one -1"),
        ({"sigma": np.array([None])}, "pickle"),
        ({"mu_s": np.zeros(4), "sigma_s": np.full((4, 4), np.nan)}, "mu_s or sigma_s holds"),
        ({"arr_0": pictures(5) / np.float32(255)}, r"arr_0 is float32 .*expected uint8"),
        ({"arr_0": pictures(5).transpose(0, 3, 1, 2).copy()}, r"arr_0 is uint8 \(5, 3, 6, 6\)"),
        ({"arr_0": pictures(1)}, "arr_0 holds 1 images; a covariance needs at least 2"),
    ],
)
def test_statistics_that_are_none_are_refused(
    arrays: dict[str, np.ndarray], message: str, reference_file: Path
) -> None:
    np.savez(reference_file, **(GOOD | arrays))
    with pytest.raises(ValueError, match=rf"labeled\.npz \({VARIABLE}\) holds no .*{message}"):
        load_reference("adm_imagenet256", NETWORK)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damaged_statistics_are_refused(reference_file: Path, save: Callable[..., None]) -> None:
    save(reference_file, arr_0=pictures(600))
    whole = reference_file.read_bytes()
    middle = len(whole) // 2
    flipped = (
        whole[:middle] + bytes(b ^ 255 for b in whole[middle : middle + 64]) + whole[middle + 64 :]
    )
    for content in (whole[:middle], flipped, b""):
        reference_file.write_bytes(content)
        with pytest.raises(ValueError, match=rf"labeled\.npz \({VARIABLE}\) holds no reference"):
            load_reference("adm_imagenet256", NETWORK)


def test_spatial_features_are_the_first_channels_of_the_first_branch_of_mixed_6() -> None:
    torch.manual_seed(0)
    network = Inception(75).eval()
    seen = {}
    network.layers.mixed_6.conv.register_forward_hook(
        lambda module, inputs, output: seen.update(conv=output)
    )
    with torch.inference_mode():
        _, spatial = network(torch.randint(256, (2, 3, 75, 75)))
    expected = seen["conv"][:, :7]
    torch.testing.assert_close(spatial, expected.flatten(1))


def test_the_score_needs_the_users_classifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "full.pth"
    monkeypatch.setenv("GIGATOK_INCEPTION_CLASSIFIER", str(path))
    with pytest.raises(ValueError, match=r"full.pth, which is not a file"):
        load_classifier()
    torch.save({"fc.weight": torch.zeros(10, 5)}, path)
    with pytest.raises(ValueError, match=r"fc.weight of shape \(1008, 2048\); found \(10, 5\)"):
        load_classifier()
    torch.save({"fc.weight": torch.full((CLASSES, FEATURES), torch.nan)}, path)
    with pytest.raises(ValueError, match=r"full.pth .*: fc.weight holds .* that are not finite"):
        load_classifier()
    random = np.random.default_rng(0)
    weight = random.normal(0, 0.05, (CLASSES, FEATURES)).astype(np.float32)
    torch.save({"fc.weight": torch.from_numpy(weight)}, path)
    pool = random.random((30, FEATURES)).astype(np.float32)
    network = FeatureNetwork("inception-2015@299", _split_channels)
    scores = inception_scores(FeatureSet(pool, None), network)
    expected = inception_score(pool, weight)
    assert 1 < expected < 30
    assert scores.metrics == {"inception_score": pytest.approx(expected)}
    assert scores.protocol["inception_score"] == "inception-2015@299, 30 samples, splits of 5000"


def test_pixels_have_no_spatial_features_and_no_classes() -> None:
    network = build_feature_network("pixels", 4, "cpu")
    stream = FeatureStream(network, 6)
    stream.add(pictures(6))
    features = stream.result()
    assert features.spatial is None
    assert features.pool is not None
    assert features.pool.shape == (6, 48)
    assert Gaussian.of(features.pool).mean.shape == (48,)
    assert inception_scores(features, network).metrics == {}
