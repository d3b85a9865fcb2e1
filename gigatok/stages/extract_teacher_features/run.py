"""Features of a frozen teacher for every training image and its mirror image, computed once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gigatok.data.image_sets import ImageSet, in_batches
from gigatok.data.splits import crop_views, load_split, to_device, to_unit_range
from gigatok.files.durable import write_array_durably
from gigatok.models.frozen.reduction import reduce_features
from gigatok.models.frozen.teachers import Teacher, build_teacher
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.tracker import Tracker
from gigatok.stages.extract_teacher_features.spec import TeacherFeaturesConfig

BATCH = 64  # images per forward pass


@dataclass(frozen=True)
class TeacherFeatures:
    """Cached features: float16 (V, N, P, S), view 1 mirrored; P = grid^2 cells, S = dim."""

    features: npt.NDArray[np.float16]
    grid: int
    dim: int

    @staticmethod
    def load(folder: Path) -> TeacherFeatures:
        """Read what this stage left, memory-mapped."""
        # Mapped: each step of training reads a few images of it.
        features = np.load(folder / "features.npy", mmap_mode="r")
        shape = json.loads((folder / "teacher.json").read_text(encoding="utf-8"))
        return TeacherFeatures(features, shape["grid"], shape["dim"])


def run(
    config: TeacherFeaturesConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Compute features; leave `features.npy` and `teacher.json`. No metrics."""
    teacher = build_teacher(config.teacher, runtime.device, config.found_teacher)
    features_VNPS = _features(teacher, config, load_split(config.train), tracker, runtime)
    # Of all images and views together, as components of each batch would differ.
    if config.components:
        features_VNPS = reduce_features(features_VNPS, config.components)
    # Half the bytes: features of ImageNet take hundreds of gigabytes.
    array = features_VNPS.to(torch.float16).numpy()
    write_array_durably(output_dir / "features.npy", array)
    shape = {"grid": teacher.grid, "dim": array.shape[-1], "teacher": config.teacher}
    (output_dir / "teacher.json").write_text(json.dumps(shape), encoding="utf-8")
    return Scores()


def _features(
    teacher: Teacher,
    config: TeacherFeaturesConfig,
    images: ImageSet,
    tracker: Tracker,
    runtime: Runtime,
) -> Tensor:
    """Compute features of all images, and of mirror images if they are trained on."""
    parts = []
    for indices in runtime.until_stopped(in_batches(len(images), BATCH)):
        side, flip = config.train.image_size, config.augment == "flip"
        views = crop_views(images, indices, side, crops=1, flip=flip)
        parts.append(
            # (V, B, P, S); parts are joined along the images.
            torch.stack(
                [
                    teacher.features(to_unit_range(to_device(view, runtime.device))).half().cpu()
                    for view in views
                ]
            )
        )
        tracker.progress(int(indices[-1]) + 1, len(images), "image")
    return torch.cat(parts, dim=1)
