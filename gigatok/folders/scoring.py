"""Scores of one folder of images against another, with the protocol of each.

Shapes: B images of one size H x W, uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gigatok.api import check_device
from gigatok.data.crops import UInt8, center_crop
from gigatok.data.image_sets import in_batches, read_ahead
from gigatok.data.splits import to_device, to_unit_range
from gigatok.folders.listing import Files, Reader, find_images, stems
from gigatok.models.frozen.features import FeatureNetwork, build_feature_network
from gigatok.models.frozen.inception import STANDARD_SIDE
from gigatok.models.frozen.perceptual import LPIPS
from gigatok.runtime.context import Scores
from gigatok.scores.feature_sets import FeatureSet, FeatureStream
from gigatok.scores.scoring import ImageScores, distribution_scores, join

PIXEL_METRICS = ("psnr", "ssim", "ssim_reference")
PAIRED = (*PIXEL_METRICS, "lpips", "rfid", "rsfid", "rkid")
"""Metrics of images and their originals, which have the same names."""
UNPAIRED = ("gfid", "gsfid", "gkid")
"""Metrics of two sets, such as samples and real images, whose names say nothing."""
BATCH = 64
"""Images per step: as in the evaluation of a study, so that bits agree with its own."""
_SHOWN = 10
"""Names that an error lists."""
Progress = Callable[[int, int], object]
"""Function that is called with the numbers of images done and of all images."""


@dataclass(frozen=True)
class FolderScoring:
    """Settings of a comparison of two folders.

    Attributes:
        metrics: of `PAIRED` and `UNPAIRED`.
        side: images are scaled by their short side to this and cropped at the centre; None: they
            stay as they are.
        network: network behind FID and KID, `inception` or `pixels`.
        resolution: side to which that network resizes; FID is defined at 299.
        lpips: network of LPIPS.
        device: such as `cpu` or `cuda`.
    """

    metrics: tuple[str, ...] = ("rfid", "psnr", "ssim", "lpips")
    side: int | None = None
    network: Literal["inception", "pixels"] = "inception"
    resolution: int = STANDARD_SIDE
    lpips: Literal["vgg", "alex"] = "vgg"
    device: str = "cpu"


def score_folders(
    images: str | Path,
    reference: str | Path,
    scoring: FolderScoring = FolderScoring(),
    on_progress: Progress = lambda done, total: None,
) -> Scores:
    """Score a folder of images against a reference.

    Images of both belong together if their paths below the folders are equal up to the ending. If
    only metrics of `UNPAIRED` are asked for, any images do.

    Raises:
        ValueError: folders or sizes do not fit, files are unreadable (all are named), or there is
            no such metric.
        AssetError: the weights of a network cannot be had; says how to supply them by hand.
    """
    _check_metrics(scoring.metrics)
    check_device(scoring.device)
    files = find_images([Path(images)]), find_images([Path(reference)])
    if set(scoring.metrics) & set(PAIRED):
        files = _paired(*files)
    # Networks first: a missing file of weights is told before an hour of reading.
    comparison = _FolderPair(scoring, *files)
    reader, total, done = Reader(), sum(map(len, files)), 0
    for batch in _read(reader, *files):
        if not reader.unreadable:
            comparison.add(*batch)
        done += sum(map(len, batch))
        on_progress(done, total)
    reader.check()
    # Resolved, since `.` has no name.
    return comparison.scores(Path(images).resolve().name, Path(reference).resolve().name)


def _check_metrics(metrics: Sequence[str]) -> None:
    allowed = (*PAIRED, *UNPAIRED)
    unknown = [name for name in metrics if name not in allowed]
    if unknown or not metrics:
        given = f"no metric {', '.join(unknown)}" if unknown else "no metric is asked for"
        raise ValueError(f"{given}; there are {', '.join(allowed)}")


def _paired(images: Files, reference: Files) -> tuple[Files, Files]:
    """Bring the files of both folders into one order.

    Raises:
        ValueError: an image has no partner.
    """
    mine, theirs = stems(images), stems(reference)
    alone = sorted(mine.keys() ^ theirs.keys())
    if alone:
        more = f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
        raise ValueError(
            f"{len(alone)} images are in one folder only: {', '.join(alone[:_SHOWN])}{more}; "
            "images belong together if their names are equal up to the ending. Without such pairs "
            f"only {', '.join(UNPAIRED)} can be computed"
        )
    order = sorted(mine)
    first = {mine[stem]: images[mine[stem]] for stem in order}
    return first, {theirs[stem]: reference[theirs[stem]] for stem in order}


Batch = tuple[list[UInt8], list[UInt8]]


def _read(reader: Reader, images: Files, reference: Files) -> Iterator[Batch]:
    """Yield images and reference images, a batch of each; one set may end before the other."""
    paths = list(images.values()), list(reference.values())
    batches = in_batches(max(map(len, paths)), BATCH)

    def pixels(rows: Sequence[int]) -> Batch:
        first, second = (
            reader.read([part[row] for row in rows if row < len(part)]) for part in paths
        )
        return first, second

    # A thread decodes the next batch while the networks run on this one.
    yield from read_ahead(pixels, (rows.tolist() for rows in batches))


class _FolderPair:
    """Two folders of images that come in batches, and what is measured of them."""

    def __init__(self, scoring: FolderScoring, images: Files, reference: Files) -> None:
        self._scoring, self._counts = scoring, (len(images), len(reference))
        self._names = iter(images)
        self._metrics = set(scoring.metrics)
        self._streams: tuple[FeatureStream, FeatureStream] | None = None
        self._network: FeatureNetwork | None = None
        if self._metrics - {*PIXEL_METRICS, "lpips"}:
            network = build_feature_network(scoring.network, scoring.resolution, scoring.device)
            self._network = network
            first, second = (FeatureStream(network, count) for count in self._counts)
            self._streams = first, second
        lpips = "lpips" in self._metrics
        self._lpips = LPIPS(scoring.lpips).to(scoring.device) if lpips else None
        self._pairs, self._distances = ImageScores(), list[Tensor]()

    def add(self, images: list[UInt8], reference: list[UInt8]) -> None:
        """Take in a batch of each folder."""
        first, second = self._cut(images), self._cut(reference)
        if self._streams is not None:
            for stream, part in zip(self._streams, (first, second), strict=True):
                for group in _of_one_size(part):
                    stream.add(group)
        if self._metrics & {*PIXEL_METRICS, "lpips"}:
            self._add_pairs(first, second)

    def _cut(self, images: list[UInt8]) -> list[UInt8]:
        side = self._scoring.side
        return images if side is None else [center_crop(image, side) for image in images]

    @torch.inference_mode()
    def _add_pairs(self, images: list[UInt8], reference: list[UInt8]) -> None:
        # `strict=False` for the names alone: they go on with the next batch.
        for mine, theirs, name in zip(images, reference, self._names, strict=False):
            if mine.shape != theirs.shape:
                sizes = " and ".join(f"{p.shape[1]}x{p.shape[0]}" for p in (mine, theirs))
                raise ValueError(
                    f"{name}: the two images have {sizes} pixels; give a side (--size) to which "
                    "both are scaled and cropped"
                )
        for x, y in zip(_of_one_size(images), _of_one_size(reference), strict=True):
            if self._metrics & set(PIXEL_METRICS):
                self._pairs.add(x, y)
            if self._lpips is not None:
                pair = (to_unit_range(to_device(part, self._scoring.device)) for part in (x, y))
                self._distances.append(self._lpips(*pair).double().cpu())

    def scores(self, images: str, reference: str) -> Scores:
        """Compute what was asked for, in that order; the names are those of the folders."""
        first, second = self._counts
        cut = "" if self._scoring.side is None else f" at {self._scoring.side} pixels"
        parts = [self._pair_scores(f"{first} images of {images} and {reference}{cut}")]
        if self._streams is not None:
            sets = f"{first} images of {images} vs {second} of {reference}{cut}"
            parts.append(self._distribution_scores(sets))
        return self._asked_for(join(*parts))

    def _asked_for(self, found: Scores) -> Scores:
        """Select the metrics that were asked for, in that order, a KID with its standard error."""
        values, protocols = dict[str, float](), dict[str, str]()
        for metric in self._scoring.metrics:
            protocols[metric] = found.protocol[metric]
            for name in (metric, f"{metric}_se"):
                if name in found.metrics:
                    values[name] = found.metrics[name]
                    protocols[name] = found.protocol[metric]
        return Scores(values, protocols)

    def _pair_scores(self, words: str) -> Scores:
        parts = []
        if self._metrics & set(PIXEL_METRICS):
            parts.append(self._pairs.result(words))
        if self._lpips is not None:
            value = float(torch.cat(self._distances).mean())
            # A study's own LPIPS is of what the decoder returned, before it became 8 bits.
            protocol = f"lpips-{self._scoring.lpips}, {words}, uint8"
            parts.append(Scores({"lpips": value}, {"lpips": protocol}))
        return join(*parts)

    def _distribution_scores(self, words: str) -> Scores:
        assert self._streams is not None
        assert self._network is not None
        first, second = (self._needed(stream.result()) for stream in self._streams)
        protocol, parts = f"{self._network.name}, {words}", []
        if self._metrics & set(PAIRED):
            parts.append(distribution_scores("r", first, second, protocol, paired=True))
        if self._metrics & set(UNPAIRED):
            parts.append(distribution_scores("g", first, second, protocol))
        return join(*parts)

    def _needed(self, features: FeatureSet) -> FeatureSet:
        """Drop what no metric asks for: KID takes minutes and sFID seconds of 50,000 images."""
        if not self._metrics & {"rkid", "gkid"}:
            features = replace(features, pool=None, gaussian=features.pooled_gaussian())
        if not self._metrics & {"rsfid", "gsfid"}:
            features = replace(features, spatial=None)
        return features


def _of_one_size(images: list[UInt8]) -> Iterator[UInt8]:
    """Stack neighbours of one size: (B, H, W, 3)."""
    for _, group in groupby(images, key=lambda image: image.shape):
        yield np.stack(list(group))
