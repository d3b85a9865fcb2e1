"""The science: models, losses, training and scores of visual tokenizers.

    import gigatok

    tokenizer = gigatok.load_tokenizer(folder)        # of a stage that trained or adopted one
    codes = gigatok.encode(tokenizer, image)          # uint8 (H, W, 3) into int64 (T,)
    image = gigatok.decode(tokenizer, codes)          # uint8 (S, S, 3)

Knows no cluster, no MLflow and no sweep.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.argv[:1] == ["-m"]:  # only while `python -m` looks for the module to run
    # It looks into the working folder first, which may hold a gigatok.py of the user.
    sys.path.insert(0, __path__[0].rpartition("/")[0])
    from gigatok.startup import prepare

    prepare(__name__, sys.path[0])

if TYPE_CHECKING:
    from gigatok.api import decode, encode, load_tokenizer

__all__ = ["decode", "encode", "load_tokenizer"]


def __getattr__(name: str) -> Any:
    """Import the API when it is asked for: it needs torch, which planning must not import."""
    if name in __all__:
        return getattr(importlib.import_module("gigatok.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
