"""Sample sets: images that all processes of a stage draw from a generator, and their features.

Each process draws whole batches of its own, computes their features, and leaves both in a folder
that all see; the first process joins them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from gigatok.config import SamplingConfig
from gigatok.data.crops import UInt8
from gigatok.data.image_sets import Int64
from gigatok.data.splits import to_uint8
from gigatok.models.frozen.features import FeatureNetwork
from gigatok.models.generator.base import Generator
from gigatok.models.generator.steps import Steps, steps_of
from gigatok.models.tokenizer.base import Tokenizer
from gigatok.runtime.context import Ranks, Runtime
from gigatok.runtime.distributed import barrier, is_main
from gigatok.runtime.tracker import Tracker
from gigatok.scores.feature_sets import FeatureSet, FeatureStream
from gigatok.scores.gaussians import Features, Moments
from gigatok.scores.sampling import generate
from gigatok.training.saved import load_generator, load_tokenizer
from gigatok.training.seeds import step_seed


@dataclass(frozen=True)
class Models:
    """Generator of codes with its steps, and the tokenizer that decodes them to images."""

    tokenizer: Tokenizer
    steps: Steps

    @property
    def generator(self) -> Generator:
        """Generator that the steps are of."""
        return self.steps.generator

    @staticmethod
    def load(tokenizer: Path, generator: Path, sampling: SamplingConfig, device: str) -> Models:
        """Load both models from the folders of the stages that made them."""
        drawing = load_generator(generator, device)
        if sampling.precision == "bf16":
            # As a whole and not by autocast: what takes time is to read the weights and the cache.
            drawing.bfloat16()
        steps = steps_of(drawing, compiled=sampling.compile)
        return Models(load_tokenizer(tokenizer, device), steps)


@dataclass(frozen=True)
class Draw:
    """Settings of a draw: the images are a pure function of these and the models.

    Attributes:
        stream: kind of random numbers; different streams are independent whatever the seeds.
    """

    sampling: SamplingConfig
    seed: int
    stream: Literal["sampling", "tuning"] = "sampling"


def draw_set(
    draw: Draw,
    models: Models,
    network: FeatureNetwork,
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> tuple[UInt8, FeatureSet] | None:
    """Draw `draw.sampling.num_images` images; all processes must call it.

    Returns:
        In the first process all images, which it leaves as `samples.npy` beside `labels.npy` in
        `output_dir`, and their features; None in the others.

    Raises:
        Interrupted: the stage was asked to stop.
    """
    share = _Share(runtime.checkpoint_dir, draw.sampling, runtime.ranks)
    # With few images some processes have no batch; they must still come to the barrier.
    if share.count():
        _draw_share(draw, share, models, network, tracker, runtime)
    barrier()
    return _join_shares(share, output_dir) if is_main() else None


@dataclass(frozen=True)
class _Share:
    """Share of one process: its batches, and the files that it leaves."""

    folder: Path
    sampling: SamplingConfig
    ranks: Ranks

    def batches(self) -> Iterator[slice]:
        """Yield its batches; those of all processes together are the whole set."""
        # Whole batches in turn: a batch's random numbers depend on its place alone, so the images
        # are the same for any number of processes.
        total, size = self.sampling.num_images, self.sampling.batch_size
        for start in range(self.ranks.rank * size, total, self.ranks.world * size):
            yield slice(start, min(start + size, total))

    def count(self) -> int:
        """Count the images in its batches."""
        return sum(batch.stop - batch.start for batch in self.batches())

    def all(self) -> list[_Share]:
        """List the shares of all processes that have one, in order."""
        world = self.ranks.world
        # Whether a process has a share follows from its rank, so none has to be asked.
        shares = [_Share(self.folder, self.sampling, Ranks(rank, world)) for rank in range(world)]
        return [share for share in shares if share.count()]

    def path(self, name: str) -> Path:
        """Name a file of this process."""
        return self.folder / f"{name}-{self.ranks.rank:03d}"


def _draw_share(
    draw: Draw,
    share: _Share,
    models: Models,
    network: FeatureNetwork,
    tracker: Tracker,
    runtime: Runtime,
) -> None:
    """Draw the images of a share, and leave them with labels and features in its files."""
    count, side = share.count(), models.tokenizer.image_size
    # In files: 50,000 images of 256 pixels are 10 GB.
    samples = _create(share.path("samples"), np.uint8, (count, side, side, 3))
    labels = _create(share.path("labels"), np.int64, (count,))
    stream, done = FeatureStream(network, count), 0
    for batch in runtime.until_stopped(share.batches(), "these samples are drawn anew"):
        images, classes = draw_batch(draw, models, batch, runtime.device)
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
def draw_batch(draw: Draw, models: Models, batch: slice, device: str) -> tuple[UInt8, Int64]:
    """Draw images uint8 (B, H, W, 3) and labels (B,), uniform over all classes.

    They are a pure function of the seed and the place of the batch in the whole set.
    """
    seed = step_seed(draw.seed, batch.start, draw.stream)
    random = torch.Generator(device).manual_seed(seed)
    shape = (batch.stop - batch.start,)
    # The null class has the number behind all classes, so it is never drawn.
    classes = torch.randint(models.generator.null_class, shape, generator=random, device=device)
    codes = generate(models.generator, classes, draw.sampling, random, steps=models.steps)
    return to_uint8(models.tokenizer.decode(codes)), classes.cpu().numpy()


def _join_shares(first: _Share, output_dir: Path) -> tuple[UInt8, FeatureSet]:
    """Join all samples in their order, as files in `output_dir`, and their features."""
    output_dir.mkdir(parents=True, exist_ok=True)
    samples = _joined(first, "samples", output_dir / "samples.npy")
    _joined(first, "labels", output_dir / "labels.npy")
    pool: Features = _joined(first, "features", first.folder / "features.npy")
    moments: Moments | None = None
    # In the order of ranks, so that rounding in the moments is the same at every run.
    for share in first.all():
        if share.path("spatial").is_file():
            moments = moments or Moments()
            moments.merge(Moments.load(share.path("spatial")))
        share.path("spatial").unlink(missing_ok=True)
    return samples, FeatureSet(pool, None if moments is None else moments.gaussian())


def _joined(first: _Share, name: str, target: Path) -> npt.NDArray[Any]:
    """Join the arrays of all shares in one file; the shares' files are removed."""
    parts = [(share, np.load(share.path(name), mmap_mode="r")) for share in first.all()]
    shape = (first.sampling.num_images, *parts[0][1].shape[1:])
    # A file again: joined in memory, the samples of 50,000 images would take 10 GB.
    whole = _create(target, parts[0][1].dtype, shape)
    for share, part in parts:
        done = 0
        for batch in share.batches():
            size = batch.stop - batch.start
            whole[batch] = part[done : done + size]
            done += size
        # At once: both copies of all images need not be on the disk for long.
        share.path(name).unlink()
    return whole


def _create(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Create an array that lives in a new `.npy` file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array: npt.NDArray[Any] = np.lib.format.open_memmap(path, "w+", dtype, shape)
    return array
