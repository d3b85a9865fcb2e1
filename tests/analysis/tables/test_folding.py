"""Settings of studies with many axes, folded into one column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.statistics.groups import Group
from analysis.tables.folding import folded_column, folded_keys, usual_note


def group(tokenizer: str, weight: float, tokens: int, variant: str) -> Group:
    identity: Mapping[str, Any] = {
        "tokenizer": tokenizer,
        "tokenizer.semantic_weight": weight,
        "tokenizer.num_latent_tokens": tokens,
        "tokenizer.variant": variant,
    }
    return Group(identity, ({**identity, "run_id": "r", "seed": 0},))


FOUND = [
    group("S-S", 0.0, 32, "1d"),
    group("S-S", 0.5, 32, "1d"),
    group("S-S", 0.0, 64, "2d"),
    group("S-L", 0.0, 32, "1d"),
]
KEYS = ["tokenizer.semantic_weight", "tokenizer.num_latent_tokens", "tokenizer.variant"]


def test_a_row_says_what_is_unusual_and_the_note_what_is_usual() -> None:
    assert folded_keys(FOUND, []) == KEYS
    cells = folded_column(FOUND, KEYS).cells
    assert cells == ("usual", "semantic_weight=0.5", "num_latent_tokens=64 variant=2d", "usual")
    note = usual_note(FOUND, KEYS)
    assert note.endswith("otherwise: semantic_weight=0 num_latent_tokens=32 variant=1d.")


def test_what_is_asked_for_keeps_a_column_of_its_own() -> None:
    assert folded_keys(FOUND, ["tokenizer.variant"]) == KEYS[:2]


def test_few_keys_keep_their_columns() -> None:
    few = [Group(dict(list(one.identity.items())[:3]), one.rows) for one in FOUND]
    assert folded_keys(few, []) == []
