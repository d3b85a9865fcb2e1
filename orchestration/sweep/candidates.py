"""Settings that a sweep might have as well: sizes and durations between and beyond its own.

They are entries of `include`, so that what is proposed is what a user would add to the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, pairwise, product
from operator import attrgetter
from typing import Any

import yaml

from gigatok.claims.claim import Claim
from gigatok.config import TransformerSize
from gigatok.names import setting_name
from orchestration.sweep.definition import SHIPPED_SCALES, Sweep, SweepError
from orchestration.sweep.grid.expansion import Trial
from orchestration.sweep.settings.keys import GENERATOR_SIZE, SEED, SIZE_FIELDS
from orchestration.sweep.settings.scales import read_scale
from orchestration.sweep.settings.settings import Sizes

Entry = Mapping[str, Any]
"""Entry of `include`: every key that varies in the sweep, and its value."""
Read = Callable[[Sequence[Entry]], Sweep]
"""Reads the sweep with some entries of `include` behind its own."""
MOST = 30
"""Candidates that are tried: each is a sweep that is read and checked."""


def with_candidates(sweep: Sweep, about: Sequence[Claim], read: Read) -> Sweep:
    """Read a sweep again with the settings that it might have as well.

    Args:
        sweep: as its file is.
        about: its claims over sizes for which more sizes are wanted.
        read: reads it with more settings.
    """
    kept: list[Entry] = []
    for entry in islice(_entries(sweep, about), MOST):
        try:
            tried = read([entry])
        # Such as an aligned layer that a smaller size has not: then it is no candidate.
        except SweepError:
            continue
        if _fits(sweep, tried):
            kept.append(entry)
    return read(kept)


def entry_of(trial: Trial, seeds: Sequence[int] = ()) -> Entry:
    """Write a trial's setting as an entry of `include`, with seeds of its own if given."""
    axes = {key: value for key, value in trial.axes.items() if key != SEED}
    return {**axes, SEED: list(seeds)} if seeds else axes


def entry_line(entry: Entry) -> str:
    """Write an entry of `include` in one line, as one would in the file."""
    text = yaml.safe_dump(dict(entry), default_flow_style=True, sort_keys=False, width=math.inf)
    return f"- {text.strip()}"


def more_text(claims: Mapping[str, str], entries: Sequence[Entry]) -> str:
    """Write claims and entries of `include` as YAML that `load_sweep` adds to a file's own."""
    parts = {"claims": dict(claims), "include": [dict(entry) for entry in entries]}
    return yaml.safe_dump({key: part for key, part in parts.items() if part}, sort_keys=False)


def _fits(sweep: Sweep, tried: Sweep) -> bool:
    """Tell whether a claim gains a size, and none is about another target or more families."""
    pairs = list(zip(sweep.claims, tried.claims, strict=True))
    same = all(
        len(own.families) == len(claim.families)
        and (own.kind != "prediction" or own.families[0][-1] == claim.families[0][-1])
        for own, claim in pairs
    )
    return same and any(len(claim.settings) > len(own.settings) for own, claim in pairs)


def _entries(sweep: Sweep, about: Sequence[Claim]) -> Iterator[Entry]:
    """List candidates, each once: between neighbours, of the scale's names, beyond the largest."""
    trials = {setting_name(trial.name): trial for trial in sweep.expansion.trials}
    seen = [entry_of(trial) for trial in trials.values()]
    for claim in about:
        for family in claim.families:
            sizes = [trials[arm.setting] for arm in family]
            # A law is about the largest that there is; only a trend may go beyond.
            beyond = claim.kind == "trend"
            for entry in _of_family(sizes, _named_sizes(sweep), beyond=beyond):
                if entry not in seen:
                    seen.append(entry)
                    yield entry


def _of_family(
    sizes: Sequence[Trial], named: Mapping[str, Sizes], *, beyond: bool
) -> Iterator[Entry]:
    for lower, upper in pairwise(sizes):
        yield from _moved(lower, upper, 0.5)
    if beyond:
        # As far from the largest as that is from the one before.
        yield from _moved(sizes[-2], sizes[-1], 2.0)
    moving = [k for k in sizes[0].axes if any(s.axes[k] != sizes[0].axes[k] for s in sizes)]
    for key in moving if len(moving) == 1 else ():
        for name in named.get(_kind(sizes[0], key), ()):
            yield {**entry_of(sizes[0]), key: name}


def _moved(lower: Trial, upper: Trial, share: float) -> Iterator[Entry]:
    """Make the setting at a share of the way between two, in logarithms; none where it is one."""
    values: dict[str, Any] = {}
    for key, written in entry_of(lower).items():
        if written == upper.axes[key]:
            values[key] = written
            continue
        first, last = (attrgetter(key)(trial.config) for trial in (lower, upper))
        found = (
            _size(first, last, share)
            if isinstance(first, TransformerSize)
            else _number(first, last, share)
        )
        if found is None:
            return
        values[key] = found
    yield values


def _number(first: Any, last: Any, share: float) -> float | int | None:
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (first, last))
    if not numbers or min(first, last) <= 0:
        return None
    found = _between(first, last, share)
    # As exact as one would write it.
    found = round(found) if isinstance(first, int) else float(f"{found:.2g}")
    return None if found in (first, last) else found


def _between(first: float, last: float, share: float) -> float:
    return float(first * (last / first) ** share)


def _size(first: TransformerSize, last: TransformerSize, share: float) -> dict[str, int] | None:
    """Find the size nearest to a share of the way in parameters, of whole heads of one width."""
    wanted = _between(_parameters(first), _parameters(last), share)
    width = first.width // first.heads
    heads = _between(first.heads, last.width / width, share)
    layers = _between(first.layers, last.layers, share)
    near = product(*((math.floor(v), math.ceil(v)) for v in (heads, layers)))
    sizes = [TransformerSize(width=h * width, layers=n, heads=h) for h, n in near if h and n]
    others = [s for s in sizes if _shape(s) not in (_shape(first), _shape(last))]
    best = min(others, key=lambda s: abs(math.log(_parameters(s) / wanted)), default=None)
    return None if best is None else _shape(best)


def _parameters(size: TransformerSize) -> float:
    # Of the blocks, up to a factor that all sizes share.
    return float(size.layers * size.width**2)


def _shape(size: TransformerSize) -> dict[str, int]:
    return {name: getattr(size, name) for name in SIZE_FIELDS}


def _kind(trial: Trial, key: str) -> str:
    if not isinstance(attrgetter(key)(trial.config), TransformerSize):
        return ""
    return GENERATOR_SIZE if key == GENERATOR_SIZE else "tokenizer"


def _named_sizes(sweep: Sweep) -> Mapping[str, Sizes]:
    """Read the sizes that the sweep's scale has names for."""
    scale = read_scale(sweep.own_scale or SHIPPED_SCALES / f"{sweep.scale}.yaml", [])
    assert scale is not None, "the sweep was read with it"
    return {"tokenizer": scale.sizes, GENERATOR_SIZE: scale.generator_sizes}
