"""Names of trials: `S-B` for the tokenizer, `key=value` of varying keys, and the seed last."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from gigatok.config import NamedConfig, TokenizerConfig, TransformerSize, TrialConfig
from gigatok.config.kinds.tokenizers import PUBLISHED
from gigatok.config.once import OncePerSections
from orchestration.sweep.formulas.quantities import size_label
from orchestration.sweep.grid.sections import Dimensions
from orchestration.sweep.settings.keys import TOKENIZER_SIZES

Name = Callable[[TrialConfig], str]


def varying_keys(blocks: Sequence[Dimensions]) -> list[str]:
    """List the keys that take more than one value, in the order of the dimensions."""
    values: dict[str, list[Any]] = {}
    for block in blocks:
        for dimension in block:
            for key in dimension.keys:
                values.setdefault(key, []).extend(row[key].value for row in dimension.rows)
    # A key that only some blocks name varies, even if these give it a single value.
    everywhere = set.intersection(*({key for d in block for key in d.keys} for block in blocks))
    return [
        key
        for key, given in values.items()
        if key not in everywhere or any(value != given[0] for value in given)
    ]


def namer(block: Dimensions, varying: Sequence[str], solved: Collection[str]) -> Name:
    """Return a function that names the trials of a block.

    Args:
        block: the dimensions of the block, the seeds last.
        varying: keys that vary in the sweep.
        solved: config keys that `solve` sets.
    """
    *before, seeds = ([key for key in d.keys if key in varying] for d in block)
    keys = [*(key for keys in before for key in keys), *solved, *seeds]
    short = _short_keys([key for key in (*varying, *solved) if key not in TOKENIZER_SIZES])
    shown = {
        key: _worder(short[key], key, _file_names(key, block))
        for key in keys
        if key not in TOKENIZER_SIZES
    }
    # Both sizes are named as soon as one of them varies, and if nothing varies at all.
    named = [*varying, *solved]
    if not named or any(key in TOKENIZER_SIZES for key in named):
        shown = {"tokenizer": lambda trial: _pair(trial.tokenizer), **shown}
    return _joined(shown)


def _worder(short: str, key: str, files: Mapping[str | None, str]) -> Name:
    """Make a function that writes a word such as `lr=0.001`."""
    get = attrgetter(key)

    def word(trial: TrialConfig) -> str:
        value = get(trial)
        return f"{short}={files[value] if files else _label(value)}"

    return word


def _joined(words: Mapping[str, Name]) -> Name:
    """Join the words that functions write, by the keys that they are about.

    Those about one section are written once for all trials that share it.
    """
    places: dict[str, list[int]] = {}
    for place, key in enumerate(words):
        places.setdefault(key.partition(".")[0], []).append(place)
    writers = list(words.values())
    sections = [_once([writers[place] for place in mine]) for mine in places.values()]
    order = [place for mine in places.values() for place in mine]
    back = [order.index(place) for place in range(len(order))]

    def name(trial: TrialConfig) -> str:
        found = [word for section in sections for word in section(trial)]
        return " ".join([found[place] for place in back])

    return name


def _once(words: Sequence[Name]) -> Callable[[TrialConfig], list[str]]:
    return OncePerSections(lambda trial: [word(trial) for word in words])


def _short_keys(keys: list[str]) -> dict[str, str]:
    """Shorten each key to its last part, or keep it whole if two keys end alike."""
    ends = [key.rpartition(".")[2] for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}


def _file_names(key: str, block: Dimensions) -> dict[str | None, str]:
    """Map the files of weights of an axis to their names, if these differ; else nothing."""
    if not key.startswith("adopt."):
        return {}
    files = {row[key].value for d in block if key in d.keys for row in d.rows}
    names = {file: "trained" if file is None else Path(file).name for file in files}
    # Two checkpoints may have one name in different folders; then whole paths tell them apart.
    return names if len(set(names.values())) == len(names) else {}


def _pair(tokenizer: TokenizerConfig) -> str:
    if tokenizer.architecture != PUBLISHED:
        return tokenizer.name
    # With its heads where a size has no letter.
    return "-".join(map(size_label, (tokenizer.encoder, tokenizer.decoder)))


def _label(value: Any) -> str:
    if isinstance(value, TransformerSize):
        return size_label(value)
    if isinstance(value, NamedConfig):
        return value.label
    if isinstance(value, tuple):
        words = (item.label if isinstance(item, NamedConfig) else str(item) for item in value)
        return ",".join(words) or "none"
    if value is None or isinstance(value, bool):
        # As YAML writes them.
        return {True: "true", False: "false", None: "null"}[value]
    # Written `1e6` or 1000000.0, a value gets one label.
    return str(value).removesuffix(".0")
