"""Metrics of images and codes, each stated exactly.

Shapes: N images, D feature channels, K codes. Image sets are uint8 (N, H, W, 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from gigatok.config.evaluation import SSIM_REFERENCE_WINDOW, SSIM_WINDOW
from gigatok.data.crops import UInt8
from gigatok.data.image_sets import Int64
from gigatok.scores.gaussians import Features, Matrix, parts

SCORE_SPLIT = 5000
"""Images over which one Inception Score is taken, before averaging."""
KID_SCALE = 1000.0
"""Factor of reported KIDs and their standard errors."""
KID_BLOCKS = 50
"""Blocks of the jackknife, if the sets are that large."""
_SSIM_DEVIATION = 1.5
"""Of the Gaussian window, in pixels."""


def psnr(images: UInt8, reference: UInt8) -> float:
    """Compute the mean over images of each image's peak signal-to-noise ratio, in dB.

    It is computed on uint8 images over a range of [0, 1], as the reference reports it. Infinite if
    an image is reproduced exactly.
    """
    _check_same_shape(images, reference)
    # Cast first: differences of uint8 would wrap around.
    difference = (images.astype(np.float64) - reference) / 255
    # (N,): decibels of each image are averaged, not the errors of all.
    squared_error = np.square(difference).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return float((-10 * np.log10(squared_error)).mean())


def ssim(images: UInt8, reference: UInt8) -> float:
    """Compute the mean structural similarity of Wang et al. 2004, as scikit-image and piq do.

    Windows are Gaussian, 11 pixels wide with a deviation of 1.5, and lie inside the image.
    Variances are biased, the data range is 1 on images in [0, 1], and RGB channels are compared
    singly. `ssim_reference` is what the reference reports.

    Raises:
        ValueError: sets are not of one shape, or images are smaller than a window.
    """
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    weights = np.exp(-0.5 * np.square(offsets / _SSIM_DEVIATION))
    return _structural_similarity(images, reference, weights / weights.sum(), 1.0)


def ssim_reference(images: UInt8, reference: UInt8) -> float:
    """Compute the structural similarity as the reference reports it, higher than `ssim`.

    The reference (`reconstruction_ddp.py`) calls scikit-image with flat windows of 7 x 7 pixels
    inside the image, unbiased variances, and a data range of 2 although images are in [0, 1]. That
    range weakens the differences between images; see docs/reference_quirks.md.

    Raises:
        ValueError: sets are not of one shape, or images are smaller than a window.
    """
    side = SSIM_REFERENCE_WINDOW
    flat = np.full(side, 1 / side)
    return _structural_similarity(images, reference, flat, 2.0, side**2 / (side**2 - 1))


def _structural_similarity(
    images: UInt8, reference: UInt8, window: Matrix, data_range: float, correction: float = 1.0
) -> float:
    """Average the structural similarity over windows, channels and images.

    Args:
        images: one set, uint8.
        reference: the other, of the same shape.
        window: weights along a side, (W,) with W odd; those along the other are the same.
        data_range: L of Wang et al. 2004, for pixels in [0, 1].
        correction: factor of variances and covariances.
    """
    # Here, because it takes as long as torch.
    from scipy.ndimage import correlate1d

    _check_same_shape(images, reference)
    if min(images.shape[1:3]) < len(window):
        raise ValueError(
            f"images of {images.shape[2]}x{images.shape[1]} pixels are smaller than the windows "
            f"of this SSIM, {len(window)}x{len(window)}; leave it out"
        )
    # Double precision: variances are differences of nearly equal numbers.
    x, y = images / 255.0, reference / 255.0
    # Windows that reach over the border would see invented pixels: theirs are cut away.
    radius = len(window) // 2
    inside = slice(None), slice(radius, -radius), slice(radius, -radius)

    def mean(image: Matrix) -> Matrix:
        found: Matrix = correlate1d(correlate1d(image, window, axis=1), window, axis=2)[inside]
        return found

    mean_x, mean_y = mean(x), mean(y)
    variances = correction * (mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2)
    covariance = correction * (mean(x * y) - mean_x * mean_y)
    # (K1 L)² and (K2 L)² of Wang et al. 2004, which keep the quotient finite.
    luminance, contrast = ((k * data_range) ** 2 for k in (0.01, 0.03))
    numerator = (2 * mean_x * mean_y + luminance) * (2 * covariance + contrast)
    denominator = (mean_x**2 + mean_y**2 + luminance) * (variances + contrast)
    return float((numerator / denominator).mean())


def _check_same_shape(images: UInt8, reference: UInt8) -> None:
    if images.shape != reference.shape or images.ndim != 4:
        raise ValueError(
            f"images {images.shape} and reference {reference.shape} must be (N, H, W, 3) alike"
        )


def kid(
    features_a: Features, features_b: Features, *, paired: bool = False
) -> tuple[float, float]:
    """Compute the Kernel Inception Distance (Binkowski 2018) and its standard error, times 1000.

    It is the unbiased MMD² over all pairs with the kernel (x.y / D + 1)³. Unlike FID, its
    expectation does not depend on the number of images; it may be negative. torch-fidelity,
    clean-fid and torchmetrics average the same estimate over 100 draws of 1,000 images, which has
    the same expectation and more noise.

    The standard error is the delete-one-block jackknife: image i is in block i mod G of its set,
    block g is left out of both sets at once, and the variance is (G - 1) / G times the sum of
    squared deviations of the G values.

    Args:
        features_a: features of one set, (N, D).
        features_b: features of the other, (M, D).
        paired: image i of set a reconstructs image i of set b. Such pairs are dependent and are
            left out of the cross term; otherwise KID of a set with itself would be below 0. This
            is the U-statistic of Gretton et al. (JMLR 13, 2012, lemma 6); other tools keep them.

    Raises:
        ValueError: a set has fewer than three images, or paired sets differ in size.
    """
    if paired and len(features_a) != len(features_b):
        raise ValueError(f"paired sets differ: {len(features_a)} and {len(features_b)} images")
    count = min(len(features_a), len(features_b))
    if count < 3:
        raise ValueError(f"KID needs at least 3 images in each set, got {count}")
    # From sums over pairs of blocks, each left-out estimate costs no further kernel.
    groups = min(KID_BLOCKS, count)
    sums_aa = _kernel_sums(features_a, features_a, groups)
    sums_bb = _kernel_sums(features_b, features_b, groups)
    sums_ab = _kernel_sums(features_a, features_b, groups)
    sizes_a, sizes_b = (_sizes(len(x), groups) for x in (features_a, features_b))
    diagonal_a, diagonal_b = (_pair_sums(x, x, groups) for x in (features_a, features_b))
    pairs_ab = _pair_sums(features_a, features_b, groups) if paired else np.zeros(groups)

    def estimate(kept: npt.NDArray[np.bool_]) -> float:
        """Compute MMD² of the kept blocks."""
        pairs = np.ix_(kept, kept)
        m, n = sizes_a[kept].sum(), sizes_b[kept].sum()
        # Without the diagonal, which makes it unbiased: an image is not compared with itself.
        within_a = (sums_aa[pairs].sum() - diagonal_a[kept].sum()) / (m * (m - 1))
        within_b = (sums_bb[pairs].sum() - diagonal_b[kept].sum()) / (n * (n - 1))
        cross = (sums_ab[pairs].sum() - pairs_ab[kept].sum()) / (m * (n - paired))
        return float(within_a + within_b - 2 * cross)

    left_out = np.array([estimate(np.arange(groups) != g) for g in range(groups)])
    variance = (groups - 1) / groups * np.square(left_out - left_out.mean()).sum()
    value = estimate(np.ones(groups, bool))
    return KID_SCALE * value, KID_SCALE * math.sqrt(variance)


def _blocks(features: Features, groups: int) -> Iterator[Matrix]:
    """Yield the blocks in float64; image i is in block i mod `groups`, which spreads classes."""
    for group in range(groups):
        yield features[group::groups].astype(np.float64)


def _sizes(count: int, groups: int) -> Int64:
    """Count the images in each block, (G,)."""
    return np.bincount(np.arange(count) % groups, minlength=groups)


def _kernel_sums(features_a: Features, features_b: Features, groups: int) -> Matrix:
    """Sum the kernel over each pair of blocks, (G, G); holds a block times a part of b."""
    # (G, M): blocks of a against single images of b.
    columns = np.empty((groups, len(features_b)))
    for group, block in enumerate(_blocks(features_a, groups)):
        done = 0
        for part in parts(features_b):
            products = block @ part.astype(np.float64).T
            columns[group, done : done + len(part)] = _kernel(products, block.shape[1]).sum(axis=0)
            done += len(part)
    return np.stack([columns[:, group::groups].sum(axis=1) for group in range(groups)], axis=1)


def _pair_sums(features_a: Features, features_b: Features, groups: int) -> Matrix:
    """Sum over each block the kernel of an image with its partner or itself, (G,)."""
    rows = zip(_blocks(features_a, groups), _blocks(features_b, groups), strict=True)
    return np.array([_kernel((x * y).sum(axis=1), x.shape[1]).sum() for x, y in rows])


def _kernel(products: Matrix, channels: int) -> Matrix:
    """Compute the cubic kernel from inner products."""
    base = products / channels + 1
    # Multiplied out: a power of an array takes several times as long.
    return base * base * base


def inception_score(features: Features, classifier: Features) -> float:
    """Compute the Inception Score (Salimans 2016) as the ADM evaluator does.

    It is exp of the mean KL divergence of an image's class probabilities from those of all images:
    over each 5,000 images in turn, then averaged. Class probabilities are the softmax without
    bias.

    Args:
        features: pooled features, (N, D).
        classifier: weights of the network's last layer, (K, D).
    """
    weights = classifier.astype(np.float64).T
    scores = []
    for start in range(0, len(features), SCORE_SPLIT):
        logits = features[start : start + SCORE_SPLIT].astype(np.float64) @ weights
        # In logarithms, where improbable classes stay finite.
        log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        p = np.exp(log_p)
        divergence = (p * (log_p - np.log(p.mean(axis=0)))).sum(axis=1)
        scores.append(math.exp(divergence.mean()))
    return float(np.mean(scores))


def codebook_usage(counts: Int64) -> float:
    """Compute the fraction of the K codes that occur, from the (K,) counts of a set of tokens."""
    return float((_checked(counts) > 0).mean())


def unigram_entropy(counts: Int64) -> float:
    """Compute the entropy of the code frequencies in nats per token: a unigram model's loss."""
    # Codes that never occur add 0: p log p tends to 0 with p.
    frequencies = _checked(counts) / counts.sum()
    seen = frequencies[frequencies > 0]
    return float(-(seen * np.log(seen)).sum())


def codebook_perplexity(counts: Int64) -> float:
    """Compute exp of the entropy: the number of equally frequent codes that is as diverse."""
    return math.exp(unigram_entropy(counts))


def _checked(counts: Int64) -> Int64:
    if counts.ndim != 1 or counts.sum() <= 0:
        raise ValueError(f"counts must be (K,) and hold at least one token, got {counts.shape}")
    return counts
