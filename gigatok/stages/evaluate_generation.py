"""Sample images from the generator and score them against real images (spec 7).

Samples are shared out over the processes that run the stage: each draws whole batches of its
own, computes their features, and leaves both in a folder that all see; the first joins them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gigatok.config import SamplingConfig
from gigatok.crops import UInt8
from gigatok.data import to_uint8
from gigatok.distributed import barrier, is_main
from gigatok.feature_sets import FeatureSet, FeatureStream
from gigatok.gaussians import Features, Moments
from gigatok.image_sets import Int64
from gigatok.models.features import FeatureNetwork, build_feature_network
from gigatok.models.generator import Generator
from gigatok.models.tokenizer import Tokenizer
from gigatok.pictures import image_grid
from gigatok.reference_statistics import load_reference
from gigatok.sampling import generate
from gigatok.saved import load_generator, load_tokenizer
from gigatok.scores import distribution_scores, inception_scores, join, manifold_scores
from gigatok.stages import (
    EvaluateGenerationConfig,
    Interrupted,
    Ranks,
    Runtime,
    Scores,
    generator_of,
    tokenizer_of,
)
from gigatok.stages.extract_reference_features import ReferenceFeatures
from gigatok.tracker import Tracker
from gigatok.training import step_seed


def run(
    config: EvaluateGenerationConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Sample and score; leaves `samples.npy` and `labels.npy`.

    Metrics: gFID, gsFID, gKID, precision, recall, and the Inception Score where it can be had.
    """
    evaluation, sampling = config.evaluation, config.sampling
    network = build_feature_network(evaluation.network, evaluation.resolution, runtime.device)
    # Before any sampling, so that a missing file is reported at once.
    reference, name = _reference(config, inputs, network)
    share = _Share(runtime.checkpoint_dir, sampling, runtime.ranks)
    if share.count():
        _sample(config, inputs, share, network, tracker, runtime)
    barrier()
    if not is_main():
        return Scores()
    samples, features = _join_shares(share, sampling, output_dir)
    tracker.image("samples", image_grid(np.asarray(samples[:64]), columns=8), 0)
    protocol = f"{network.name}, {len(samples)} samples ({guidance(sampling)}) vs {name}"
    return join(
        distribution_scores("g", features, reference, protocol),
        manifold_scores(features, reference, protocol),
        inception_scores(features, network),
    )


def guidance(config: SamplingConfig) -> str:
    """The sampling settings that a score depends on, in words."""
    parts = ["no guidance"]
    if config.cfg_scale > 1:
        parts = [f"{config.cfg_schedule} guidance {config.cfg_scale:g}"]
        if config.cfg_schedule == "step":
            parts[0] += f" from {config.cfg_start:g}"
    if config.temperature != 1:
        parts.append(f"temperature {config.temperature:g}")
    if config.top_k:
        parts.append(f"top-k {config.top_k}")
    if config.top_p < 1:
        parts.append(f"top-p {config.top_p:g}")
    return ", ".join(parts)


def _reference(
    config: EvaluateGenerationConfig, inputs: Mapping[str, Path], network: FeatureNetwork
) -> tuple[FeatureSet, str]:
    """Features of the real images, and which they are."""
    if config.evaluation.reference == "val":
        found = ReferenceFeatures.load(inputs["extract_reference_features"])
        return found.features, found.images
    statistics = load_reference(config.evaluation.reference, network)
    return statistics.features, statistics.name


@dataclass(frozen=True)
class _Share:
    """What one process draws, and where it leaves it."""

    folder: Path
    sampling: SamplingConfig
    ranks: Ranks

    def batches(self) -> Iterator[slice]:
        """Its batches; those of all processes together are the whole set."""
        total, size = self.sampling.num_images, self.sampling.batch_size
        for start in range(self.ranks.rank * size, total, self.ranks.world * size):
            yield slice(start, min(start + size, total))

    def count(self) -> int:
        """Images in its batches."""
        return sum(batch.stop - batch.start for batch in self.batches())

    def all(self) -> list[_Share]:
        """The shares of all processes that have one, in order."""
        world = self.ranks.world
        shares = [_Share(self.folder, self.sampling, Ranks(rank, world)) for rank in range(world)]
        return [share for share in shares if share.count()]

    def path(self, name: str) -> Path:
        """A file of this process."""
        return self.folder / f"{name}-{self.ranks.rank:03d}"


def _sample(
    config: EvaluateGenerationConfig,
    inputs: Mapping[str, Path],
    share: _Share,
    network: FeatureNetwork,
    tracker: Tracker,
    runtime: Runtime,
) -> None:
    """Draw the images of a share and leave them, their labels and features in its files."""
    tokenizer = load_tokenizer(tokenizer_of(inputs), runtime.device)
    generator = load_generator(generator_of(inputs), runtime.device)
    count, side = share.count(), tokenizer.image_size
    samples = _create(share.path("samples"), np.uint8, (count, side, side, 3))
    labels = _create(share.path("labels"), np.int64, (count,))
    stream, done = FeatureStream(network, count), 0
    for batch in share.batches():
        if runtime.should_stop():
            raise Interrupted("stopped on request; this stage starts over")
        images, classes = draw_batch(config, tokenizer, generator, batch, runtime.device)
        stream.add(images)
        part = slice(done, done + len(images))
        samples[part], labels[part] = images, classes
        done = part.stop
        tracker.progress(done, count, "image")
    pool = stream.pool
    _create(share.path("features"), np.float32, pool.shape)[:] = pool
    if stream.moments is not None:
        stream.moments.save(share.path("spatial"))


@torch.inference_mode()
def draw_batch(
    config: EvaluateGenerationConfig,
    tokenizer: Tokenizer,
    generator: Generator,
    batch: slice,
    device: str,
) -> tuple[UInt8, Int64]:
    """Images uint8 (B, H, W, 3) and labels (B,), drawn uniformly from all classes.

    A pure function of the seed and the place of the batch in the whole set.
    """
    seed = step_seed(config.seed, batch.start, "sampling")
    random = torch.Generator(device).manual_seed(seed)
    shape = (batch.stop - batch.start,)
    classes = torch.randint(generator.null_class, shape, generator=random, device=device)
    codes = generate(generator, classes, config.sampling, random)
    return to_uint8(tokenizer.decode(codes)), classes.cpu().numpy()


def _join_shares(
    first: _Share, sampling: SamplingConfig, output_dir: Path
) -> tuple[UInt8, FeatureSet]:
    """All samples in their order, as files in `output_dir`, and their features."""
    output_dir.mkdir(parents=True, exist_ok=True)
    samples = _joined(first, "samples", output_dir / "samples.npy")
    _joined(first, "labels", output_dir / "labels.npy")
    pool: Features = _joined(first, "features", first.folder / "features.npy")
    moments: Moments | None = None
    for share in first.all():
        if share.path("spatial").is_file():
            moments = moments or Moments()
            moments.merge(Moments.load(share.path("spatial")))
        share.path("spatial").unlink(missing_ok=True)
    return samples, FeatureSet(pool, None if moments is None else moments.gaussian())


def _joined(first: _Share, name: str, target: Path) -> npt.NDArray[Any]:
    """The arrays of all shares as one file; the shares' files are removed."""
    parts = [(share, np.load(share.path(name), mmap_mode="r")) for share in first.all()]
    shape = (first.sampling.num_images, *parts[0][1].shape[1:])
    whole = _create(target, parts[0][1].dtype, shape)
    for share, part in parts:
        done = 0
        for batch in share.batches():
            size = batch.stop - batch.start
            whole[batch] = part[done : done + size]
            done += size
        share.path(name).unlink()
    return whole


def _create(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """An array that lives in a new `.npy` file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array: npt.NDArray[Any] = np.lib.format.open_memmap(path, "w+", dtype, shape)
    return array
