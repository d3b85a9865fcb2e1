"""Trained tokenizers in Python: load one, encode images into codes, decode codes into images.

    import gigatok

    tokenizer = gigatok.load("runs/stages/train_tokenizer/S-B-0123456789abcdef")
    codes = tokenizer.encode(image)                   # (T,) of one image
    again = tokenizer.decode(codes)                   # (S, S, 3)
    tokenizer.push_to_hub("me/my-tokenizer")          # or save_pretrained(folder)
    tokenizer = gigatok.Tokenizer.from_pretrained("me/my-tokenizer")

Shapes: B images, H and W their sides, S the tokenizer's side, T tokens per image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from gigatok.data.crops import UInt8
from gigatok.data.splits import to_device, to_uint8, to_unit_range
from gigatok.files.weight_files import unreadable
from gigatok.hub import transfer
from gigatok.hub.card import model_card
from gigatok.hub.folder import WEIGHTS, find_weights, read_config, write_folder
from gigatok.hub.origin import Origin, read_origin
from gigatok.hub.views import ImagesLike, square_views
from gigatok.models.tokenizer.base import Tokenizer
from gigatok.training.saved import describe_tokenizer, described_tokenizer, load_weights, place

Codes = npt.NDArray[np.int64]
Precision = Literal["fp32", "bf16", "fp16"]
BATCH = 64
"""Images per forward pass: as in the evaluation of a study, so that bits agree with its own."""
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def load(
    where: str | Path, *, device: str = "cpu", precision: Precision = "fp32"
) -> TrainedTokenizer:
    """Load a trained tokenizer: of a stage, a folder of `save_pretrained`, or the Hub.

    Args:
        where: folder of a complete stage, or its `out`; a saved folder; or a Hub id `user/name`.
        device: such as `cpu` or `cuda`.
        precision: of the networks; `bf16` and `fp16` are mixed precision, as in training.

    Raises:
        ValueError: there is no tokenizer, or no such device.
    """
    return TrainedTokenizer.from_pretrained(where, device=device, precision=precision)


class TrainedTokenizer:
    """Tokenizer with its weights, for images of any size; knows where it comes from.

    Attributes:
        model: the network, in eval mode. It takes float (B, 3, S, S) in [-1, 1].
        source: folder that the weights were read from.
    """

    def __init__(self, model: Tokenizer, source: Path, precision: Precision = "fp32") -> None:
        self.model, self.source = model, source
        self._precision = precision

    @classmethod
    def from_pretrained(
        cls,
        where: str | Path,
        *,
        device: str = "cpu",
        precision: Precision = "fp32",
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | Path | None = None,
    ) -> TrainedTokenizer:
        """Load as `load` does; `revision`, `token` and `cache_dir` are those of the Hub.

        Raises:
            ValueError: there is no tokenizer, or no such device.
        """
        check_device(device)
        if precision != "fp32" and precision not in _TYPES:
            raise ValueError(f"no precision {precision!r}; there are fp32, bf16 and fp16")
        source = find_weights(Path(where))
        if source is None and Path(where).is_dir():
            raise ValueError(
                f"{where}: no tokenizer (model.safetensors with config.json or model.json); give "
                "the folder of a complete stage train_tokenizer or adopt_tokenizer, or one that "
                "`save_pretrained` wrote"
            )
        source = source or transfer.download(str(where), revision, token, cache_dir)
        return cls(place(_read_model(source), device).eval(), source, precision)

    @property
    def image_size(self) -> int:
        """Side S of the square images, in pixels."""
        return self.model.image_size

    @property
    def tokens(self) -> int:
        """Number T of codes of an image."""
        return self.model.config.sequence_length(self.image_size)

    @property
    def codebook_size(self) -> int:
        """Number of different codes."""
        return self.model.config.vocabulary

    @cached_property
    def origin(self) -> Origin:
        """Trials, data, code and scores, as far as they are recorded beside the weights."""
        config = read_config(self.source)
        if "origin" in config:
            return Origin.model_validate(config["origin"])
        return read_origin(self.source.absolute().parent)

    def encode(self, images: ImagesLike) -> Codes:
        """Encode images into codes: (T,) of one image, (B, T) of several.

        Images of another size than the tokenizer's are scaled to it by their short side and
        cropped at the centre, as the images of an evaluation are.

        Args:
            images: an image of Pillow in any mode of 8 bits; a uint8 array (H, W, 3) or
                (B, H, W, 3); a uint8 tensor (3, H, W) or (B, 3, H, W); or a list of single ones,
                which may differ in size.

        Raises:
            ValueError: of another type or shape.
        """
        views, is_one = square_views(images, self.image_size)
        codes = self.encode_views(views)
        return codes[0] if is_one else codes

    @torch.inference_mode()
    def encode_views(self, views: UInt8) -> Codes:
        """Encode images that have the tokenizer's size: (B, S, S, 3) into (B, T)."""
        found = np.empty((len(views), self.tokens), np.int64)
        for part in _batches(len(views)):
            with self._mixed_precision():
                pixels = to_device(views[part], str(self._device))
                codes_BT = self.model.encode(to_unit_range(pixels))
            found[part] = codes_BT.cpu().numpy()
        return found

    @torch.inference_mode()
    def decode(self, codes: npt.ArrayLike | torch.Tensor) -> UInt8:
        """Decode codes into uint8 RGB images: (T,) into (S, S, 3), and (B, T) into (B, S, S, 3).

        Args:
            codes: whole numbers from 0 to the size of the codebook, without it.

        Raises:
            ValueError: of another shape, or outside the codebook.
        """
        array: npt.NDArray[Any] = np.asarray(
            codes.cpu() if isinstance(codes, torch.Tensor) else codes
        )
        self._check_codes(array)
        batch = np.atleast_2d(array).astype(np.int64)
        side = self.image_size
        images = np.empty((len(batch), side, side, 3), np.uint8)
        for part in _batches(len(batch)):
            with self._mixed_precision():
                decoded = self.model.decode(torch.from_numpy(batch[part]).to(self._device))
            images[part] = to_uint8(decoded)
        return images if array.ndim == 2 else images[0]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json`, `model.safetensors` and a model card, which replace older ones."""
        # A placeholder: the folder's own path would tell of this machine wherever it is uploaded.
        self._write(Path(folder), "FOLDER_OR_HUB_ID")

    def push_to_hub(
        self, name: str, *, private: bool | None = None, token: str | None = None
    ) -> str:
        """Upload what `save_pretrained` writes to the Hub; returns the address of the commit.

        Args:
            name: Hub id, `user/name`; the repository is made if there is none.
            private: whether a new repository is private; None: the default of its owner.
            token: of the Hub; None: that of `hf auth login` or `HF_TOKEN`.

        Raises:
            ValueError: huggingface_hub is not installed, or the Hub refuses.
        """
        with tempfile.TemporaryDirectory() as folder:
            self._write(Path(folder), name)
            return transfer.upload(Path(folder), name, private=private, token=token)

    def _write(self, folder: Path, shown: str) -> None:
        description = describe_tokenizer(self.model)
        config = {"tokenizer": description, "origin": self.origin.model_dump(mode="json")}
        card = model_card(description, self.tokens, self.codebook_size, self.origin, shown)
        write_folder(folder, self.model, config, card)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _mixed_precision(self) -> AbstractContextManager[object]:
        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, _TYPES[self._precision])

    def _check_codes(self, array: npt.NDArray[Any]) -> None:
        tokens, size = self.tokens, self.codebook_size
        if array.dtype.kind not in "iu" or array.ndim not in (1, 2) or array.shape[-1] != tokens:
            raise ValueError(
                f"got {array.dtype} of shape {array.shape}; codes are whole numbers ({tokens},) "
                f"or (B, {tokens})"
            )
        if array.size and not 0 <= array.min() <= array.max() < size:
            raise ValueError(
                f"got codes {array.min()} to {array.max()}; allowed are 0 to {size - 1}"
            )


def _batches(count: int) -> Iterator[slice]:
    for start in range(0, count, BATCH):
        yield slice(start, min(start + BATCH, count))


def _read_model(source: Path) -> Tokenizer:
    """Build the described network with its weights.

    Raises:
        ValueError: a file is damaged, or the two do not belong together.
    """
    if (fault := unreadable(source / WEIGHTS)) is not None:
        raise ValueError(f"{source / WEIGHTS} {fault}")
    model = described_tokenizer(read_config(source)["tokenizer"])
    try:
        load_weights(source, model)
    except RuntimeError as error:
        raise ValueError(
            f"{source / WEIGHTS} holds other weights than those of the tokenizer that is "
            "described beside it; copy both files again"
        ) from error
    return model


def check_device(device: str) -> None:
    """Raise `ValueError` unless torch finds the device on this machine."""
    try:
        # A tensor is made: only that shows whether torch was built for the device and finds one.
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"no device {device!r} here ({reason}); `cpu` is always there") from error
