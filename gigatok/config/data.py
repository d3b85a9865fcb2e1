"""Images that a trial and its stages read."""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt

from gigatok.config.base import Config
from gigatok.config.data_sets import DATA_SETS, find_data_set


def _known(name: str) -> str:
    return find_data_set(name).name


def _list_names(schema: dict[str, Any]) -> None:
    """Add the names to the JSON schema, which messages and editors read."""
    schema["enum"] = list(DATA_SETS)  # as the registry is then: plug-ins add to it


DataSetName = Annotated[str, AfterValidator(_known), Field(json_schema_extra=_list_names)]


class DataConfig(Config):
    """Data set of a trial: the first images of the training split and of the validation split."""

    name: DataSetName
    """Data set by name."""
    image_size: PositiveInt
    """Side of the square images, in pixels."""
    train_images: PositiveInt
    """Number of training images: the first of the split."""
    val_images: PositiveInt
    """Number of validation images: the first of the split."""

    @property
    def num_classes(self) -> int:
        """Number of classes of the data set."""
        return find_data_set(self.name).num_classes


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


@lru_cache(maxsize=1024)
def split_config(name: str, split: str, image_size: int, images: int) -> SplitConfig:
    """Build a split config, one object per value, so that equal ones are one object."""
    # Ten thousand trials share a handful of splits; comparing each by value would cost seconds.
    values = {"name": name, "split": split, "image_size": image_size, "images": images}
    return SplitConfig.model_validate(values)
