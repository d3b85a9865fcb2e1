"""Reconstruct validation images and score them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gigatok.data.crops import UInt8
from gigatok.data.image_sets import ImageSet, in_batches, read_ahead
from gigatok.data.pictures import reconstruction_grid
from gigatok.data.splits import load_split, to_device, to_uint8, to_unit_range
from gigatok.models.frozen.features import FeatureNetwork, build_feature_network
from gigatok.models.frozen.perceptual import LPIPS
from gigatok.models.tokenizer.base import Tokenizer
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.tracker import Tracker
from gigatok.scores.complexity import LatentSpread
from gigatok.scores.feature_sets import FeatureSet, FeatureStream
from gigatok.scores.scoring import ImageScores, describe, distribution_scores, join
from gigatok.stages.evaluate_reconstruction.spec import EvaluateReconstructionConfig
from gigatok.stages.extract_reference_features.run import ReferenceFeatures
from gigatok.stages.models import tokenizer_of
from gigatok.training.saved import load_tokenizer

BATCH = 64  # images per forward pass


def run(
    config: EvaluateReconstructionConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Score reconstructions; leave `reconstructions.npy`.

    Metrics: rFID, rsFID, rKID, PSNR, SSIM, LPIPS, and the effective rank of the latents.
    """
    evaluation, images = config.evaluation, load_split(config.val)
    tokenizer = load_tokenizer(tokenizer_of(inputs), runtime.device)
    network = build_feature_network(evaluation.network, evaluation.resolution, runtime.device)
    measured = _Reconstruction(config, tokenizer, network, output_dir, len(images), runtime.device)
    _reconstruct(measured, images, tracker, runtime)
    tracker.image("reconstructions", measured.picture(images), 0)
    reference = ReferenceFeatures.load(inputs["extract_reference_features"])
    protocol = f"{network.name}, {len(images)} reconstructions vs {reference.images}"
    return join(
        # Paired: image i reconstructs image i, which KID's cross term leaves out.
        distribution_scores("r", measured.features(), reference.features, protocol, paired=True),
        measured.scores(),
    )


def _reconstruct(
    measured: _Reconstruction, images: ImageSet, tracker: Tracker, runtime: Runtime
) -> None:
    done = 0
    # The next batch is decoded in a thread while this one is scored.
    batches = read_ahead(images.centred, in_batches(len(images), BATCH))
    for originals in runtime.until_stopped(batches):
        measured.add(originals)
        done += len(originals)
        tracker.progress(done, len(images), "image")


class _Reconstruction:
    """Reconstructs batches of images; keeps the results in a file and what they are worth."""

    def __init__(
        self,
        config: EvaluateReconstructionConfig,
        tokenizer: Tokenizer,
        network: FeatureNetwork,
        output_dir: Path,
        count: int,
        device: str,
    ) -> None:
        name = config.evaluation.lpips_network
        self._config, self._tokenizer, self._device = config, tokenizer, device
        self._lpips = None if name == "none" else LPIPS(name).to(device)
        self._stream, self._pairs = FeatureStream(network, count), ImageScores()
        self._distances: list[Tensor] = []
        self._spread = LatentSpread()
        side = config.val.image_size
        output_dir.mkdir(parents=True, exist_ok=True)
        # Mapped: 50,000 images of 256 pixels take 10 GB.
        self._kept = np.lib.format.open_memmap(
            output_dir / "reconstructions.npy", "w+", np.uint8, (count, side, side, 3)
        )
        self._done = 0

    @torch.inference_mode()
    def add(self, originals: UInt8) -> None:
        """Take in images (B, H, W, 3)."""
        batch = to_unit_range(to_device(originals, self._device))
        # (B, H, W, 3) uint8 -> (B, 3, H, W) in [-1, 1] -> (B, T, codebook_dim).
        latents = self._tokenizer.encode_latents(batch)
        # Encoded once, for the codes and for the spread of latents.
        reconstruction = self._tokenizer.decode(self._tokenizer.quantize.nearest(latents))
        # float64: effective rank comes from differences of large sums.
        self._spread.add(latents.flatten(0, 1).double().cpu().numpy())
        # What a file would hold; LPIPS alone sees the unclamped floats.
        pixels = to_uint8(reconstruction)
        if self._lpips is not None:
            # Left on the device: to read it would wait once more.
            self._distances.append(self._lpips(reconstruction, batch).double())
        self._pairs.add(pixels, originals)
        self._stream.add(pixels)
        self._kept[self._done : self._done + len(pixels)] = pixels
        self._done += len(pixels)

    def features(self) -> FeatureSet:
        """Collect the features of the reconstructions."""
        return self._stream.result()

    def scores(self) -> Scores:
        """Compute PSNR, SSIM, LPIPS (on unclamped floats, as the reference), spread of latents."""
        images = describe(self._config.val)
        rank = {"effective_rank": self._spread.effective_rank()}
        protocol = {"effective_rank": f"{images}, latents before quantisation"}
        pairs = join(self._pairs.result(images), Scores(rank, protocol))
        if not self._distances:
            return pairs
        network = f"lpips-{self._config.evaluation.lpips_network}, {images}, unclamped"
        lpips = float(torch.cat(self._distances).mean())
        return join(pairs, Scores({"lpips": lpips}, {"lpips": network}))

    def picture(self, images: ImageSet) -> UInt8:
        """Draw the first eight images above their reconstructions."""
        originals = images.centred(np.arange(min(8, len(images))))
        pair = originals, np.asarray(self._kept[:8])
        return reconstruction_grid(*(to_unit_range(part) for part in pair))
