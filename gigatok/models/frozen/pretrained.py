"""Loading of networks of transformers, which must fill their models and nothing more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import nn

from gigatok.files.foreign_weights import flaw

_OTHER_PARTS = (
    *("text_", "visual_projection", "logit_", "vision_model.head."),
    *("classifier.", "cls_classifier.", "distillation_classifier.", "pooler."),
)
"""Beginnings of what files hold beside the patch features that are taken, or lack.

Of whole models the text encoder; of classifiers the head; the pooling of the class token.
"""


def transformers_for(teacher: str) -> ModuleType:
    """Import transformers, which a teacher needs.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            f"tokenizer.teacher {teacher} needs transformers: pip install "
            "'gigatok-scaling[teachers]' (or take another, such as resnet50)"
        ) from error
    return transformers


def load_pretrained(kind: Any, title: str, source: str, advice: str, **options: Any) -> Any:
    """Load a network in float32; its files hold safetensors, or a pickle of weights alone.

    Args:
        kind: class of transformers.
        title: name of the network, for messages.
        source: folder or repository.
        advice: what to do where it cannot be loaded.
        options: of `from_pretrained`.

    Raises:
        ValueError: the files cannot be read, or are not those of the network.
    """
    try:
        model, found = kind.from_pretrained(
            source,
            output_loading_info=True,
            dtype=torch.float32,  # else a file in half precision gives a model in half precision
            ignore_mismatched_sizes=True,  # so that `found` names them, for `_problem`
            # Both are defaults today. Neither may ever be otherwise: files must not run code.
            trust_remote_code=False,
            weights_only=True,
            **options,
        )
    except Exception as error:  # files of any content make it raise whatever it will
        raise ValueError(f"cannot load {title} from {source}: {error}\n{advice}") from error
    if (problem := _problem(model, found)) is not None:
        raise ValueError(f"{source} is no {title}: {problem}\n{advice}")
    return model


def _problem(model: nn.Module, found: Mapping[str, Any]) -> str | None:
    """Say what is wrong with loaded weights: transformers draws at random what did not fit.

    It says so in a log that nobody reads, and what has no place in the model (a deeper one's
    layers, where `config.json` is of another) it drops.
    """
    if missing := _read(found["missing_keys"]):
        return f"it lacks {_some(missing)}"
    if found["mismatched_keys"]:
        return f"of another shape are {_some(key for key, *_ in found['mismatched_keys'])}"
    if beside := _read(found["unexpected_keys"]):
        return f"it also has {_some(beside)}, so config.json is of another model"
    flaws = (f"{name} {text}" for name, p in model.named_parameters() if (text := flaw(p)))
    return next(flaws, None)


def _read(keys: Iterable[str]) -> list[str]:
    """Keep the names of weights that patch features depend on."""
    return [key for key in keys if not key.startswith(_OTHER_PARTS)]


def _some(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:3]) + ", ..."
