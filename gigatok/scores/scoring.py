"""Scores of whole image sets and code sets: every value with its protocol."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gigatok.config import CodeShape, SplitConfig
from gigatok.config.evaluation import SSIM_REFERENCE_WINDOW, SSIM_WINDOW
from gigatok.data.crops import UInt8
from gigatok.models.frozen.features import FeatureNetwork
from gigatok.models.frozen.inception import CLASSIFIER_VARIABLE, load_classifier
from gigatok.models.quantizers.base import entries_of
from gigatok.runtime.context import Scores
from gigatok.scores import image_metrics
from gigatok.scores.complexity import ngram_entropies
from gigatok.scores.feature_sets import FeatureSet
from gigatok.scores.gaussians import frechet_distance
from gigatok.scores.manifold import precision_recall

Counts = npt.NDArray[np.int64]
NOT_MEASURED = "not measured: "
"""Start of the protocol of an absent metric; the reason follows."""
NGRAM_TOKENS = 2**24
"""Training tokens that n-gram models count: seconds and 1 GiB, and enough for K² cells."""
NO_IMAGES = "the reference has statistics only, no images"


def describe(split: SplitConfig) -> str:
    """Describe a set of images in words, such as `256 val images of cifar10@32`."""
    return f"{split.images} {split.split} images of {split.title}@{split.image_size}"


def distribution_scores(
    prefix: Literal["r", "g"],
    features: FeatureSet,
    reference: FeatureSet,
    protocol: str,
    *,
    paired: bool = False,
) -> Scores:
    """Compute FID, sFID and KID as `rfid`, `rsfid`, `rkid`, `rkid_se`, or with g.

    Args:
        prefix: r for reconstruction, g for generation.
        features: features of the images to score.
        reference: features of real images.
        protocol: network and image sets, in words.
        paired: image i reconstructs reference image i.
    """
    fid, sfid, kid, kid_se = (prefix + name for name in ("fid", "sfid", "kid", "kid_se"))
    values = {fid: frechet_distance(features.pooled_gaussian(), reference.pooled_gaussian())}
    protocols = {fid: protocol}
    # A missing score has a protocol with the reason, but never a value.
    if features.spatial is not None and reference.spatial is not None:
        values[sfid] = frechet_distance(features.spatial, reference.spatial)
        protocols[sfid] = f"{protocol}, first 7 channels of mixed_6"
    else:
        protocols[sfid] = NOT_MEASURED + "the network or the reference has no spatial features"
    if reference.pool is not None:
        assert features.pool is not None
        values[kid], values[kid_se] = image_metrics.kid(
            features.pool, reference.pool, paired=paired
        )
        protocols[kid] = f"{protocol}, {describe_kid(paired)}"
    else:
        protocols[kid] = NOT_MEASURED + NO_IMAGES
    return Scores(values, protocols)


def describe_kid(paired: bool) -> str:
    """Describe in words how KID and its standard error are estimated."""
    pairs = "all pairs but those of an image with its own original" if paired else "all pairs"
    blocks = image_metrics.KID_BLOCKS
    return f"unbiased cubic MMD² of {pairs} in float64, jackknife s.e. of at most {blocks} blocks"


def manifold_scores(features: FeatureSet, reference: FeatureSet, protocol: str) -> Scores:
    """Compute precision and recall of generated images."""
    assert features.pool is not None
    if reference.pool is None:
        reason = NOT_MEASURED + NO_IMAGES
        return Scores({}, {"precision": reason, "recall": reason})
    precision, recall = precision_recall(features.pool, reference.pool)
    # Recall depends on the number of reference images, so the protocol names it.
    text = (
        f"{protocol}, third neighbours among pooled features, distances in float64, "
        f"{len(reference.pool)} reference images"
    )
    values = {"precision": precision, "recall": recall}
    return Scores(values, dict.fromkeys(values, text))


def inception_scores(features: FeatureSet, network: FeatureNetwork) -> Scores:
    """Compute the Inception Score, if the user has supplied the network's last layer."""
    name = "inception_score"
    # Other networks have no classes, so the score has no meaning for them.
    if not network.name.startswith("inception"):
        return Scores({}, {name: f"{NOT_MEASURED}{network.name} is no classifier"})
    classifier = load_classifier()
    # The free weights of the FID network end before the classifier.
    if classifier is None:
        reason = f"{NOT_MEASURED}{CLASSIFIER_VARIABLE} does not name weights with the classifier"
        return Scores({}, {name: reason})
    assert features.pool is not None
    score = image_metrics.inception_score(features.pool, classifier.numpy())
    protocol = (
        f"{network.name}, {len(features.pool)} samples, splits of {image_metrics.SCORE_SPLIT}"
    )
    return Scores({name: score}, {name: protocol})


class ImageScores:
    """PSNR and SSIM of reconstructions that come in batches."""

    def __init__(self) -> None:
        self._totals = dict.fromkeys(_PAIR_METRICS, 0.0)
        self._count, self._smallest = 0, math.inf

    def add(self, reconstructions: UInt8, originals: UInt8) -> None:
        """Take in a batch, both uint8 (B, H, W, 3)."""
        self._smallest = min(self._smallest, *originals.shape[1:3])
        for name in self._measured():
            # Weighted by images: the last batch may be smaller.
            value = _PAIR_METRICS[name].compute(reconstructions, originals)
            self._totals[name] += len(originals) * value
        self._count += len(originals)

    def _measured(self) -> list[str]:
        """Name the metrics whose windows fit into all images so far."""
        return [name for name, m in _PAIR_METRICS.items() if m.window <= self._smallest]

    def result(self, images: str) -> Scores:
        """Return means over all images; `images` names the set for the protocol."""
        protocol = {
            name: f"{images}, {metric.words}"
            if metric.window <= self._smallest
            else f"{NOT_MEASURED}its windows have {metric.window} pixels, the smallest image "
            f"{self._smallest}"
            for name, metric in _PAIR_METRICS.items()
        }
        values = {name: self._totals[name] / self._count for name in self._measured()}
        return Scores(values, protocol)


@dataclass(frozen=True)
class _PairMetric:
    """Metric of pairs of images.

    Attributes:
        compute: takes images and originals, and returns a mean over them.
        words: what its protocol says besides the set of images.
        window: pixels that each side of an image must have.
    """

    compute: Callable[[UInt8, UInt8], float]
    words: str
    window: int = 1


_PAIR_METRICS = {
    "psnr": _PairMetric(image_metrics.psnr, "uint8"),
    "ssim": _PairMetric(
        image_metrics.ssim,
        f"uint8, each RGB channel, Gaussian {SSIM_WINDOW}x{SSIM_WINDOW} windows inside the image",
        SSIM_WINDOW,
    ),
    "ssim_reference": _PairMetric(
        image_metrics.ssim_reference,
        "uint8, flat 7x7 windows and a data range of 2",
        SSIM_REFERENCE_WINDOW,
    ),
}


def join(*parts: Scores) -> Scores:
    """Join scores of several kinds."""
    return Scores(
        {name: value for part in parts for name, value in part.metrics.items()},
        {name: text for part in parts for name, text in part.protocol.items()},
    )


def codebook_scores(codes_NT: Tensor, shape: CodeShape, images: str) -> Scores:
    """Compute the use of the codebooks by codes (N, T); `images` names the set for the protocol.

    Of several codebooks all entries count. The entropy is of a code whatever its codebook, as
    the generator and the n-gram models see it.
    """
    entries, codes = _entry_counts(codes_NT, shape), _counts(codes_NT, shape.vocabulary)
    values = {
        "codebook_usage": image_metrics.codebook_usage(entries),
        "codebook_perplexity": image_metrics.codebook_perplexity(entries),
        "unigram_entropy": image_metrics.unigram_entropy(codes),
    }
    return Scores(values, dict.fromkeys(values, images))


def _entry_counts(codes_NT: Tensor, shape: CodeShape) -> Counts:
    """Count the uses of each entry of all codebooks, (D*K,)."""
    return _counts(entries_of(codes_NT.long(), shape), shape.entries)


def _counts(numbers_NT: Tensor, size: int) -> Counts:
    # With codes that never occur, which usage is about.
    counts: Counts = torch.bincount(numbers_NT.flatten().long(), minlength=size).numpy()
    return counts


def codes_by_uses(codes_NT: Tensor, shape: CodeShape) -> list[tuple[int, int]]:
    """Count how often entries are used: (least uses, number of entries) of each bin.

    Bins are 0, 1, 2 to 3, 4 to 7 and so on, up to that of the most used code; empty ones included.
    """
    counts = _entry_counts(codes_NT, shape)
    # Powers of two: uses of codes differ by orders of magnitude.
    edges = [0, *(2**power for power in range(int(counts.max()).bit_length()))]
    bins = np.searchsorted(edges, counts, side="right") - 1
    return list(zip(edges, np.bincount(bins, minlength=len(edges)).tolist(), strict=True))


def ngram_scores(
    train_NT: Tensor, val_MT: Tensor, codebook_size: int, images: str, val_images: str
) -> Scores:
    """Compute losses of n-gram models; `images` and `val_images` name the sets for the protocol.

    Of a large training set only the first images are counted, `NGRAM_TOKENS` tokens.
    """
    # At least one image, however many tokens it has.
    kept = train_NT[: max(1, NGRAM_TOKENS // train_NT.shape[1])]
    found = ngram_entropies(
        kept.numpy().astype(np.int64), val_MT.numpy().astype(np.int64), codebook_size
    )
    values = {"bigram_entropy": found[2], "trigram_entropy": found[3]}
    protocol = f"{val_images}, Witten-Bell counts of one view of {len(kept)} of {images}"
    return Scores(values, dict.fromkeys(values, protocol))
