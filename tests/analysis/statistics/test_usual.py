"""Settings of studies with many axes: what is usual is said once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from analysis.claims.findings import compared
from analysis.statistics.groups import Group
from analysis.statistics.usual import folded_keys, prevailing, usual_note, usual_values
from analysis.store.runs import PROTOCOL
from analysis.tables.folding import brief_labels, folded_column
from gigatok.names import METRICS


def group(tokenizer: str, weight: float, tokens: int, variant: str) -> Group:
    identity: Mapping[str, Any] = {
        "tokenizer": tokenizer,
        "tokenizer.semantic_weight": weight,
        "tokenizer.num_latent_tokens": tokens,
        "tokenizer.variant": variant,
    }
    row = {**dict.fromkeys(METRICS), **dict.fromkeys(map(PROTOCOL.__add__, METRICS))}
    row |= {**identity, "run_id": "r", "seed": 0, "psnr": 20.0 + weight + tokens}
    row["params_tokenizer"] = {"S-S": 1e6, "S-L": 2e6}[tokenizer]
    return Group(identity, (row,))


FOUND = [
    group("S-S", 0.0, 32, "1d"),
    group("S-S", 0.5, 32, "1d"),
    group("S-S", 0.0, 64, "2d"),
    group("S-L", 0.0, 32, "1d"),
]
KEYS = ["tokenizer.semantic_weight", "tokenizer.num_latent_tokens", "tokenizer.variant"]


def test_a_row_says_what_is_unusual_and_the_note_what_is_usual() -> None:
    assert folded_keys(FOUND) == KEYS
    cells = folded_column(FOUND, KEYS).cells
    assert cells == ("usual", "semantic_weight=0.5", "num_latent_tokens=64 variant=2d", "usual")
    note = usual_note(usual_values(FOUND, KEYS))
    assert note.endswith("otherwise: semantic_weight=0 num_latent_tokens=32 variant=1d.")


def test_a_legend_names_what_is_unusual() -> None:
    assert brief_labels(FOUND)[1:3] == [
        "S-S semantic_weight=0.5",
        "S-S num_latent_tokens=64 variant=2d",
    ]


def test_a_finding_says_where_it_is_unless_it_is_where_most_are() -> None:
    further = group("S-S", 0.5, 64, "2d")
    found = [one for one in compared([*FOUND, further]) if one.metric == "psnr"]
    assert [one.change for one in found] == [
        "S-S → S-L",
        "semantic_weight 0 → 0.5 at S-S",
        "semantic_weight 0 → 0.5 at S-S num_latent_tokens=64 variant=2d",
        "num_latent_tokens 32 → 64, variant 1d → 2d at S-S",
        "num_latent_tokens 32 → 64, variant 1d → 2d at S-S semantic_weight=0.5",
    ]


def test_in_a_full_grid_nothing_prevails() -> None:
    grid = [group("S-S", w, t, v) for w in (0.0, 0.5) for t in (32, 64) for v in ("1d", "2d")]
    assert prevailing(grid) == {}
    assert prevailing(FOUND) == usual_values(FOUND, KEYS)


def test_what_is_asked_for_keeps_a_column_of_its_own() -> None:
    assert folded_keys(FOUND, ["tokenizer.variant"]) == KEYS[:2]


def test_few_keys_keep_their_columns() -> None:
    few = [Group(dict(list(one.identity.items())[:3]), one.rows) for one in FOUND]
    assert folded_keys(few) == []
