"""Model card of a tokenizer: the README.md of its folder, written from its origin."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from gigatok.config import TokenizerArchitecture
from gigatok.config.kinds.tokenizers import PUBLISHED
from gigatok.hub.origin import MeasuredScore, Origin
from gigatok.names import PARAMETERS, quantity
from gigatok.text.markdown import inert

EXPECTED = ("rfid", "psnr", "ssim", "lpips", "codebook_usage")
"""Scores that a reader looks for: a card says so if one of them was not measured."""
NOT_KNOWN = "not known"
_SHOWN = ("steps", "batch_size", "lr", "precision", "teacher", "semantic_weight", "discriminator")
"""Settings of training that a card shows; config.json has all."""


def model_card(
    description: Mapping[str, Any], tokens: int, codebook_size: int, origin: Origin, where: str
) -> str:
    """Write the card.

    Args:
        description: of the network, as `describe_tokenizer` gives it.
        tokens: number of codes of an image.
        codebook_size: number of different codes.
        origin: where the weights come from.
        where: folder or Hub id to load from, as the example shows it.
    """
    architecture = TokenizerArchitecture.model_validate(description["architecture"])
    title = f"Visual tokenizer {inert(origin.name or architecture.name)}"
    sections = (
        f"---\n{_front_matter(origin)}---\n\n# {title}",
        _summary(architecture, int(description["image_size"]), tokens, codebook_size),
        _usage(where, int(description["image_size"]), tokens),
        "## Origin\n\n" + _table(("", ""), _origin_rows(origin)),
        "## Scores\n\n" + _score_text(origin.scores),
    )
    return "\n\n".join(sections) + "\n"


def _front_matter(origin: Origin) -> str:
    """Write the metadata that a hub reads: library, tags, and scores for its leaderboards."""
    facts: dict[str, Any] = {
        "library_name": "gigatok",
        "tags": ["visual-tokenizer", "vector-quantization", "image-reconstruction"],
    }
    judged = [score for score in origin.scores if _is_judged(score)]
    if judged:
        results = [
            {
                "task": {"type": "image-reconstruction"},
                "dataset": {"type": "images", "name": protocol},
                "metrics": [
                    {"type": s.metric, "name": quantity(s.metric).label, "value": s.value}
                    for s in judged
                    if s.protocol == protocol
                ],
            }
            # One entry per protocol, so that no two are ever compared as if they were one.
            for protocol in dict.fromkeys(score.protocol for score in judged)
        ]
        facts["model-index"] = [{"name": origin.name or "tokenizer", "results": results}]
    return yaml.safe_dump(facts, sort_keys=False, allow_unicode=True)


def _is_judged(score: MeasuredScore) -> bool:
    """Tell whether a score has a finite value and a better direction: JSON has no infinity."""
    has_value = score.value is not None and math.isfinite(score.value)
    return has_value and quantity(score.metric).better is not None


def _summary(
    architecture: TokenizerArchitecture, side: int, tokens: int, codebook_size: int
) -> str:
    kind, origin = "", f"The architecture is `{inert(architecture.name)}`, of a plug-in."
    if architecture.architecture == PUBLISHED:
        kind = architecture.variant.upper() + " "
        origin = "The architecture is that of [GigaTok](https://arxiv.org/abs/2504.08736)."
    return (
        f"A {kind}visual tokenizer: it encodes an RGB image of {side}×{side} pixels into "
        f"{tokens} codes from a codebook of {codebook_size}, and decodes codes into "
        f"images. {origin} Images of other "
        f"sizes are scaled by their short side to {side} pixels and cropped at the centre."
    )


def _usage(where: str, side: int, tokens: int) -> str:
    return f"""## Use

```python
import gigatok
from PIL import Image

tokenizer = gigatok.Tokenizer.from_pretrained("{where}")
codes = tokenizer.encode(Image.open("image.png"))  # int64 ({tokens},)
image = tokenizer.decode(codes)  # uint8 ({side}, {side}, 3)
```"""


def _origin_rows(origin: Origin) -> list[tuple[str, str]]:
    code = origin.commit or NOT_KNOWN
    # A commit alone would promise code that was not what ran.
    if origin.changed:
        code += ", with changes that were not committed"
    uses = "; ".join(f"{use.sweep} at scale {use.scale}, trial {use.trial}" for use in origin.uses)
    trained = {name: origin.training[name] for name in _SHOWN if name in origin.training}
    rows = {
        "sweep and trial": uses,
        "stage": f"{origin.stage} {origin.key}" if origin.stage else None,
        "training data": origin.data,
        "seed": origin.seed,
        "training": ", ".join(f"{name} {value}" for name, value in trained.items()),
        "parameters": _parameters(origin.scores),
        "adopted weights": ", ".join(f"{name}: {fact}" for name, fact in origin.adopted.items()),
        "code": code,
        "torch": origin.packages.get("torch"),
        "complete since": origin.finished,
    }
    # Weights are either trained or adopted: the row of the other one would say nothing.
    left_out = {"adopted weights"} if not origin.adopted else {"training", "training data", "seed"}
    return [
        (name, NOT_KNOWN if value in (None, "") else str(value))
        for name, value in rows.items()
        if name not in left_out
    ]


def _parameters(scores: tuple[MeasuredScore, ...]) -> str:
    """Write the counts of weights, which have no protocol and are no scores."""
    counts = {s.metric: s.value for s in scores if _is_count(s) and s.value is not None}
    return ", ".join(
        f"{quantity(name).text(value)} {quantity(name).printed_unit} {quantity(name).label}"
        for name, value in counts.items()
    )


def _is_count(score: MeasuredScore) -> bool:
    return quantity(score.metric).unit == PARAMETERS


def _score_text(scores: tuple[MeasuredScore, ...]) -> str:
    # Standard errors are written behind their values and have no rows of their own.
    errors = {quantity(score.metric).standard_error for score in scores}
    rows = [
        (quantity(score.metric).heading, _value(score, scores), score.protocol)
        for score in scores
        if score.value is not None and not _is_count(score) and score.metric not in errors
    ]
    text = _table(("metric", "value", "protocol"), rows) if rows else "No score is recorded."
    missing = _missing(scores)
    return text + (f"\n\nNot measured: {inert('; '.join(missing))}." if missing else "")


def _value(score: MeasuredScore, scores: tuple[MeasuredScore, ...]) -> str:
    """Write a value with its standard error, where the same stage reported one."""
    metric = quantity(score.metric)
    assert score.value is not None, "only measured scores are written"
    text = metric.text(score.value)
    # Of the same stage: another one's error may be of other images.
    found = [
        s.value for s in scores if s.stage == score.stage and s.metric == metric.standard_error
    ]
    return text if not found or found[0] is None else f"{text} ± {metric.text(found[0])} s.e."


def _missing(scores: tuple[MeasuredScore, ...]) -> list[str]:
    """List metrics without a value, with the reason where it is recorded."""
    measured = {score.metric for score in scores if score.value is not None}
    reasons = {score.metric: score.protocol for score in scores if score.value is None}
    # Expected ones first, so that every card lists them in the same order.
    names = dict.fromkeys((*EXPECTED, *reasons))
    return [
        quantity(name).label
        + (f" ({reasons[name].removeprefix('not measured: ')})" if name in reasons else "")
        for name in names
        if name not in measured
    ]


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    # Names come from users: neither markup nor a bar may break the table.
    return inert(text).replace("|", "\\|")
