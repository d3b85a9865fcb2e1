"""The science: models, losses, training and scores of visual tokenizers.

    import gigatok

    tokenizer = gigatok.load(where)        # folder of a stage, a saved folder, or a Hub id
    codes = tokenizer.encode(image)        # uint8 (H, W, 3) into int64 (T,)
    image = tokenizer.decode(codes)        # uint8 (S, S, 3)
    gigatok.score_folders(images, originals)

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
    from gigatok.api import TrainedTokenizer as Tokenizer
    from gigatok.api import load
    from gigatok.folders.scoring import score_folders

__all__ = ["Tokenizer", "load", "score_folders"]

_HOMES = {
    "Tokenizer": ("gigatok.api", "TrainedTokenizer"),
    "load": ("gigatok.api", "load"),
    "score_folders": ("gigatok.folders.scoring", "score_folders"),
}


def __getattr__(name: str) -> Any:
    """Import the API when it is asked for: it needs torch, which planning must not import."""
    if name in _HOMES:
        module, attribute = _HOMES[name]
        return getattr(importlib.import_module(module), attribute)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
