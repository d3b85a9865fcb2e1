"""Images that a trial and its stages read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator

from gigatok.config.fields.base import Config
from gigatok.config.fields.marks import FOUND, RUNTIME
from gigatok.config.fields.open_name import NameOf
from gigatok.config.kinds.data_sets import DATA_SETS, find_data_set, look_at


def _no_path(name: str) -> str:
    """Say what to write instead of a path, which is what many try first."""
    if name not in DATA_SETS and ("/" in name or Path(name).exists()):
        error = ValueError(f"{name} is no name of a data set")
        error.add_note(f"for your own images, give data.name=folder and data.path={name}")
        raise error
    return name


def _absolute(path: str | None) -> str | None:
    # Absolute, because workers and `resume` run in other folders than the launch.
    return path and str(Path(path).expanduser().absolute())


DataSetName = Annotated[str, AfterValidator(_no_path), NameOf("data set")]
PathOfImages = Annotated[str | None, AfterValidator(_absolute)]


class FoundSplit(Config):
    """Facts about one split of a user's images."""

    images: PositiveInt
    """Number of images."""
    content: str
    """Hash of their pixels, in order."""
    labels: str
    """Hash of their classes, in order."""


class FoundImages(Config):
    """Facts about a user's images, found by looking at them when a trial is planned."""

    num_classes: PositiveInt
    """Number of classes; 1: the images have none."""
    train: FoundSplit
    """Training images."""
    val: FoundSplit
    """Validation images."""
    # The rest is for messages only. It differs between containers of the same images.
    smaller: Annotated[NonNegativeInt, RUNTIME] = 0
    """Images with a side below `data.image_size`, which are enlarged."""
    in_both: Annotated[NonNegativeInt, RUNTIME] = 0
    """Distinct images that are in both splits."""
    in_neither: Annotated[NonNegativeInt, RUNTIME] = 0
    """Images in folders or archives beside those of the splits."""
    layout: Annotated[str, RUNTIME] = ""
    """How the images are stored, in words."""
    left_out: Annotated[str, RUNTIME] = ""
    """Files that are no images: their numbers by suffix, in words."""

    @property
    def words(self) -> str:
        """Numbers of images and classes in words."""
        train, val = self.train.images, self.val.images
        classes = "1 class" if self.num_classes == 1 else f"{self.num_classes:,} classes"
        return (
            f"{train + val:,} of {classes} ({self.layout}), {train:,} to train and {val:,} to "
            "validate"
        )

    def warnings(self) -> Iterator[str]:
        """Say what may not be meant."""
        if self.num_classes == 1:
            yield (
                "  one class: generation is unconditional; sampling.cfg_scale and guidance.search "
                "have no meaning and are off, linear_probe and probe_tokenizer do not apply"
            )
        if self.in_both:
            yield f"  {self.in_both:,} images are in both splits: scores will look too good"
        if self.in_neither:
            yield f"  left out, as they are in neither split: {self.in_neither:,} images"
        if self.left_out:
            yield f"  left out, as they are no images: {self.left_out}"


class DataConfig(Config):
    """Data set of a trial: the first images of the training split and of the validation split."""

    name: DataSetName
    """Data set by name."""
    # Run-time: images are known by their content, wherever they lie.
    path: Annotated[PathOfImages, RUNTIME] = None
    """Your own images, with name `folder`: a folder, or a file `.tar`, `.parquet` or `.npz`."""
    # A fifth: enough of 400 images for the validation images of scale `smoke`.
    val_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Part of your own images that validates, unless they come in splits."""
    image_size: PositiveInt
    """Side of the square images, in pixels."""
    train_images: PositiveInt
    """Number of training images: the first of the split."""
    val_images: PositiveInt
    """Number of validation images: the first of the split."""
    found: Annotated[FoundImages | None, FOUND] = None
    """Facts about your own images; filled in by looking, and recorded with the plan."""

    @property
    def num_classes(self) -> int:
        """Number of classes of the data set."""
        known = find_data_set(self.name).num_classes
        if known is not None:
            return known
        # A draft of a trial has not been validated, and so has not looked yet.
        return (self.found or self._look()).num_classes

    @model_validator(mode="after")
    def _looked_at(self) -> DataConfig:
        if find_data_set(self.name).looks is None:
            if self.path is not None:
                raise ValueError(
                    f"path {self.path} is for name folder; name is {self.name}: give "
                    "data.name=folder as well, or leave data.path out"
                )
        # A recorded plan has the facts: it can be read wherever the images are now.
        elif self.found is None:
            self._check_counts(found := self._look())
            self.__dict__["found"] = found
        return self

    def lines(self) -> Iterator[str]:
        """Say what was found of a user's own images, as a plan shows it; warnings are indented."""
        if self.found is None:
            return
        yield f"images in {self.path}: {self.found.words}"
        if self.found.smaller:
            yield (
                f"  {self.found.smaller:,} have a side below data.image_size {self.image_size} "
                "and are enlarged"
            )
        yield from self.found.warnings()

    def _look(self) -> FoundImages:
        if self.path is None:
            raise ValueError(
                f"name {self.name} needs the path of the images: give data.path, a folder or a "
                "file .tar, .parquet or .npz"
            )
        found: FoundImages = look_at(self.name, self.path, self.val_fraction, self.image_size)
        return found

    def _check_counts(self, found: FoundImages) -> None:
        problems = []
        for key, asked, split in (
            ("train_images", self.train_images, found.train),
            ("val_images", self.val_images, found.val),
        ):
            if asked > split.images:
                use = "to train on" if split is found.train else "to validate on"
                problems.append(
                    f"{key} {asked:,} are more than the {split.images:,} that {self.path} has "
                    f"{use}: lower data.{key}"
                )
        if problems:
            raise ValueError("; ".join(problems))


class ImageFolder(Config):
    """Images of a user: their content is identity, the place where they lie is not."""

    path: Annotated[str, RUNTIME]
    """Where they lie, absolute."""
    val_fraction: Annotated[float, RUNTIME]
    """Part that validates, unless they come in splits; `content` says what came of it."""
    content: str
    """Hash of the pixels of the whole split."""
    # None for stages that read no classes: these are reused when images are labelled anew.
    labels: str | None = None
    """Hash of the classes of the whole split."""
    num_classes: PositiveInt | None = None
    """Number of classes of the data set."""


class SplitConfig(Config):
    """First `images` images of one split."""

    name: DataSetName
    """Data set by name."""
    split: Literal["train", "val"]
    """Split of the data set."""
    image_size: PositiveInt
    """Side of the square images, in pixels."""
    images: PositiveInt
    """Number of images: the first of the split."""
    folder: ImageFolder | None = None
    """Images of a user; None: the data set is known by its name."""

    @property
    def title(self) -> str:
        """Name of the data set in protocols; of a user's images, with the start of their hash."""
        # Scores of different images must never pass for comparable.
        return self.name if self.folder is None else f"{self.name}-{self.folder.content[:8]}"


@lru_cache(maxsize=1024)
def split_config(
    data: DataConfig, split: Literal["train", "val"], images: int, labels: bool
) -> SplitConfig:
    """Build a split config, one object per value, so that equal ones are one object."""
    # Ten thousand trials share a handful of splits; comparing each by value would cost seconds.
    folder = None
    if data.found is not None:
        assert data.path is not None, "only a path is looked at"
        found = data.found.train if split == "train" else data.found.val
        folder = ImageFolder(
            path=data.path,
            val_fraction=data.val_fraction,
            content=found.content,
            labels=found.labels if labels else None,
            num_classes=data.found.num_classes if labels else None,
        )
    return SplitConfig(
        name=data.name, split=split, image_size=data.image_size, images=images, folder=folder
    )
