"""Encode all views of the training images, and the validation images, once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
import torch
from torch import Tensor

from gigatok.data.archives.streamed import Arrays, StreamProgress, flush, open_streamed
from gigatok.data.image_sets import ImageSet, Int64, in_batches, read_ahead
from gigatok.data.splits import crop_views, load_split, on_host, to_device, to_unit_range
from gigatok.models.tokenizer.base import Tokenizer
from gigatok.names import CODE_USES
from gigatok.runtime.context import Interrupted, Runtime, Scores
from gigatok.runtime.tracker import Tracker
from gigatok.scores.scoring import codebook_scores, codes_by_uses, describe, join, ngram_scores
from gigatok.stages.extract_codes.spec import ExtractCodesConfig
from gigatok.stages.models import tokenizer_of
from gigatok.training.saved import CODES_FILE, Codes, code_tensors, load_tokenizer

BATCH = 128
"""Images that are encoded at once."""
SAVE_EVERY = 500
"""Batches after which what is encoded is safe on disk."""


def run(
    config: ExtractCodesConfig,
    inputs: Mapping[str, Path],
    output_dir: Path,
    tracker: Tracker,
    runtime: Runtime,
) -> Scores:
    """Encode; leave `codes.safetensors`.

    Metrics: how validation images use the codebook, and how well one code predicts the next.
    Codes go into the file as they come, so memory holds one batch; a stage that was interrupted
    goes on where it stopped.
    """
    tokenizer = load_tokenizer(tokenizer_of(inputs), runtime.device)
    train, val = load_split(config.train), load_split(config.val)
    # Among the checkpoints until it is complete: a half file must not look like a result.
    partial = runtime.checkpoint_dir / CODES_FILE
    tensors = code_tensors(
        views=config.codes.crops * (1 + config.codes.flip),
        train=len(train),
        val=len(val),
        tokens=tokenizer.config.sequence_length(config.train.image_size),
        codebook_size=tokenizer.config.vocabulary,
    )
    arrays = open_streamed(partial, tensors)
    # Written again after a resume, with the same values.
    arrays["train_labels"][:], arrays["val_labels"][:] = train.labels, val.labels
    arrays["sizes"][:] = tokenizer.config.vocabulary, train.num_classes
    reader = _Reader(config, train, val, runtime.device)
    _encode_all(reader, tokenizer, arrays, tracker, runtime)
    output_dir.mkdir(parents=True, exist_ok=True)
    partial.replace(output_dir / CODES_FILE)
    codes = Codes.load(output_dir)
    images, size = describe(config.val), codes.codebook_size
    shape = tokenizer.config.code_shape
    for uses, count in codes_by_uses(codes.val, shape):
        tracker.metrics({CODE_USES: count}, uses)
    return join(
        codebook_scores(codes.val, shape, images),
        ngram_scores(codes.train[0], codes.val, size, describe(config.train), images),
    )


@dataclass(frozen=True)
class _Batch:
    """Views of a part of one split, and which part; only one view of `val`.

    They are uint8 (V, B, H, W, 3) in memory that can be copied to the device at any time.
    """

    name: Literal["train", "val"]
    part: slice
    views: Tensor


class _Reader:
    """Reads batches of both splits, training images first."""

    def __init__(
        self, config: ExtractCodesConfig, train: ImageSet, val: ImageSet, device: str
    ) -> None:
        self._config, self._train, self._val, self._device = config, train, val, device
        # A resume goes on at a number in this list, so its order is fixed.
        self.starts = [("train", i) for i in in_batches(len(train), BATCH)]
        self.starts += [("val", i) for i in in_batches(len(val), BATCH)]

    def places(self, number: int, arrays: Arrays) -> list[npt.NDArray[Any]]:
        """Parts of the arrays that the batch of a number fills."""
        name, indices = self.starts[number]
        # The images of a batch are consecutive, so a slice names them.
        part = slice(int(indices[0]), int(indices[-1]) + 1)
        return [arrays["val"][part]] if name == "val" else [v[part] for v in arrays["train"]]

    def read(self, batch: tuple[str, Int64]) -> _Batch:
        """Read the views of one batch."""
        name, indices = batch
        part = slice(int(indices[0]), int(indices[-1]) + 1)
        if name == "val":
            views = self._val.centred(indices)[None]
            return _Batch("val", part, on_host(views, self._device))
        side, codes = self._config.train.image_size, self._config.codes
        views = crop_views(self._train, indices, side, codes.crops, codes.flip)
        return _Batch("train", part, on_host(views, self._device))


@torch.inference_mode()
def _encode(tokenizer: Tokenizer, batch: _Batch, arrays: Arrays, device: str) -> None:
    """Encode one batch into its place; waits for the device once, whatever the views."""
    views = to_device(batch.views, device)
    # (B, H, W, 3) uint8 -> (B, 3, H, W) in [-1, 1] -> (B, S), the codes of all tokens.
    codes_VBS = torch.stack([tokenizer.encode(to_unit_range(view)) for view in views])
    # `val` has no axis of views.
    places = arrays["val"][None] if batch.name == "val" else arrays["train"]
    places[:, batch.part] = codes_VBS.cpu().numpy()


def _encode_all(
    reader: _Reader, tokenizer: Tokenizer, arrays: Arrays, tracker: Tracker, runtime: Runtime
) -> None:
    """Encode every batch that is not known to be done.

    Raises:
        Interrupted: the stage was asked to stop; what is done stays.
    """
    progress = StreamProgress(runtime.checkpoint_dir, arrays, lambda n: reader.places(n, arrays))
    done, total = progress.read(), len(reader.starts)
    # The next batch is decoded in a thread while this one is encoded.
    for batch in read_ahead(reader.read, reader.starts[done:]):
        if runtime.should_stop():
            tracker.sync()
            progress.save(done)
            raise Interrupted(f"stopped on request after batch {done} of {total}")
        _encode(tokenizer, batch, arrays, runtime.device)
        done += 1
        tracker.progress(done, total, "batch")
        if done % SAVE_EVERY == 0:
            tracker.sync()
            progress.save(done)
    # On disk before the caller moves the file, which makes it a result.
    flush(arrays)
    progress.clear()
