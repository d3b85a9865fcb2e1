"""FID of CIFAR-10's training images against its test images, with this project's pipeline.

    python tests/benchmarks/fid_cifar10.py                all 50,000 and 10,000, as in literature
    python tests/benchmarks/fid_cifar10.py --images 500   a quick look: mostly bias

The literature gives about 3.15 with the same network (the value that generative models on CIFAR-10
are compared with). Takes 65 ms of CPU an image, an hour in all; minutes on a GPU.
"""

from __future__ import annotations

import time
from typing import Annotated

import torch
import typer

from gigatok.config import SplitConfig
from gigatok.data import load_split
from gigatok.feature_sets import FeatureSet, FeatureStream
from gigatok.gaussians import frechet_distance
from gigatok.image_sets import in_batches
from gigatok.metrics import kid
from gigatok.models.features import FeatureNetwork, build_feature_network

LITERATURE = 3.15
BATCH = 256


def features(network: FeatureNetwork, split: str, images: int) -> FeatureSet:
    """Features of the first images of a split, with progress on the terminal."""
    config = SplitConfig.model_validate(
        {"name": "cifar10", "split": split, "image_size": 32, "images": images}
    )
    data = load_split(config)
    stream, start = FeatureStream(network, images), time.perf_counter()
    for indices in in_batches(images, BATCH):
        stream.add(data.centred(indices))
        done = int(indices[-1]) + 1
        rate = done / (time.perf_counter() - start)
        print(f"\r{split}: {done} of {images}, {rate:.1f} images/s", end="", flush=True)
    print()
    return stream.result()


def main(
    images: Annotated[
        int, typer.Option(help="Training images; a fifth as many of test.")
    ] = 50_000,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; 0: torch's choice.")] = 0,
) -> None:
    """Compute FID, sFID and KID of CIFAR-10's training against its test images."""
    if threads:
        torch.set_num_threads(threads)
    network = build_feature_network("inception", 299, device)
    train, test = features(network, "train", images), features(network, "val", images // 5)
    assert train.pool is not None
    assert test.pool is not None
    assert train.spatial is not None
    assert test.spatial is not None
    fid = frechet_distance(train.pooled_gaussian(), test.pooled_gaussian())
    sfid = frechet_distance(train.spatial, test.spatial)
    value, error = kid(train.pool, test.pool)
    print(f"{network.name}, {images} training against {images // 5} test images of cifar10@32")
    print(f"FID  {fid:.4f}" + (f" (literature: {LITERATURE})" if images == 50_000 else ""))
    print(f"sFID {sfid:.4f}")
    print(f"KID  {value:.3f} ± {error:.3f} (x1000)")


if __name__ == "__main__":
    typer.run(main)
