"""FID of CIFAR-10's training images against its test images, with this project's pipeline.

    python tests/benchmarks/fid_cifar10.py                all 50,000 and 10,000, as in literature
    python tests/benchmarks/fid_cifar10.py --images 500   a quick look: mostly bias

The literature gives about 3.15 with the same network (the value that generative models on CIFAR-10
are compared with); here it was 3.151. Takes 65 ms of CPU an image, an hour in all; minutes on a
GPU. Features are kept part by part in a folder: the same command continues after an interruption.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer

from gigatok.config import SplitConfig
from gigatok.data.image_sets import ImageSet
from gigatok.data.splits import load_split
from gigatok.files.durable import write_durably
from gigatok.models.frozen.features import FeatureNetwork, build_feature_network
from gigatok.scores.gaussians import Moments, frechet_distance
from gigatok.scores.image_metrics import kid

LITERATURE = 3.15
PART, BATCH = 1000, 32
FOLDER = Path(tempfile.gettempdir(), "fid_cifar10")
Features = npt.NDArray[np.float32]


def parts(network: FeatureNetwork, split: str, images: int, folder: Path) -> list[Path]:
    """Files of the pooled and spatial features of a split's first images; computes what lacks."""
    config = SplitConfig.model_validate(
        {"name": "cifar10", "split": split, "image_size": 32, "images": images}
    )
    data, files = load_split(config), []
    for start in range(0, images, PART):
        end = min(start + PART, images)
        file = folder / f"{network.name}-{split}-{start:05d}-{end:05d}.npz"
        if not file.exists():
            began = time.perf_counter()
            pool, spatial = features(network, data, np.arange(start, end))
            write_durably(file, lambda path, p=pool, s=spatial: save(path, p, s))  # type: ignore[misc]
            rate = (end - start) / (time.perf_counter() - began)
            print(f"{split}: {end} of {images}, {rate:.1f} images/s", flush=True)
        files.append(file)
    return files


def save(path: Path, pool: Features, spatial: Features) -> None:
    """Write one part."""
    with path.open("wb") as file:
        np.savez(file, pool=pool, spatial=spatial)


@torch.inference_mode()
def features(
    network: FeatureNetwork, data: ImageSet, indices: npt.NDArray[np.int64]
) -> tuple[Features, Features]:
    """Pooled (N, D) and spatial (N, E) features."""
    pools, spatials = [], []
    for part in np.array_split(indices, range(BATCH, len(indices), BATCH)):
        images = torch.from_numpy(np.ascontiguousarray(data.centred(part)))
        pool, spatial = network.apply(images.permute(0, 3, 1, 2))
        assert spatial is not None
        pools.append(pool.float().cpu().numpy())
        spatials.append(spatial.float().cpu().numpy())
    return np.concatenate(pools), np.concatenate(spatials)


def moments(files: list[Path], name: str) -> Moments:
    """Of all parts."""
    result = Moments()
    for file in files:
        with np.load(file) as arrays:
            result.add(arrays[name])
    return result


def main(
    images: Annotated[
        int, typer.Option(help="Training images; a fifth as many of test.")
    ] = 50_000,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="CPU threads; 0: torch's choice.")] = 0,
    folder: Annotated[Path, typer.Option(help="Where features are kept.")] = FOLDER,
) -> None:
    """Compute FID, sFID and KID of CIFAR-10's training against its test images."""
    if threads:
        torch.set_num_threads(threads)
    folder.mkdir(parents=True, exist_ok=True)
    network = build_feature_network("inception", 299, device)
    test = parts(network, "val", images // 5, folder)
    train = parts(network, "train", images, folder)
    for title, name in (("FID ", "pool"), ("sFID", "spatial")):
        gaussians = (moments(files, name).gaussian() for files in (train, test))
        literature = f" (literature: {LITERATURE})" if name == "pool" and images == 50_000 else ""
        print(f"{title} {frechet_distance(*gaussians):.4f}{literature}")
    pools = [np.concatenate([np.load(file)["pool"] for file in files]) for files in (train, test)]
    value, error = kid(*pools)
    print(f"KID  {value:.3f} ± {error:.3f} (x1000)")
    print(f"{network.name}, {images} training against {images // 5} test images of cifar10@32")


if __name__ == "__main__":
    typer.run(main)
