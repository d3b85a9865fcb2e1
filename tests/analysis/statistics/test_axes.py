"""Axes as settings show them, and families of settings over a quantity."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.statistics.axes import axes_of, families_over, ladders
from analysis.statistics.groups import Group


def axis(*values: object, column: str = "x", sizes: Sequence[float] = ()) -> list[Group]:
    """Settings that differ in a column, with a tokenizer of each size where sizes are given."""
    return [
        Group(
            {"tokenizer": f"S-{i}" if sizes else "S-S", column: value},
            ({"run_id": str(i), "seed": 0, "params_tokenizer": sizes[i] if sizes else 1.0},),
        )
        for i, value in enumerate(values)
    ]


def orders(found: list[Group], column: str = "x") -> list[list[object]]:
    return [[group.identity[column] for group in ladder] for ladder in ladders(found)]


def test_numbers_are_an_axis_in_their_order() -> None:
    assert orders(axis(64, 16, 256)) == [[16, 64, 256]]
    assert orders(axis(0.5, None)) == [[None, 0.5]], "no value is as good as 0"


def test_values_without_an_order_are_compared_with_the_first() -> None:
    assert orders(axis("vq", "fsq", "lfq")) == [["vq", "fsq"], ["vq", "lfq"]]


def test_tokenizers_are_ordered_by_size_whatever_varies_with_them() -> None:
    """A zip of tokenizers and steps is one axis, and no step has a comparison of its own."""
    assert orders(axis(100, 300, 200, sizes=(3.0, 1.0, 2.0))) == [[300, 200, 100]]


def test_architectures_have_no_order_though_they_differ_in_size() -> None:
    found = axis("gigatok", "vqvae", "titok", sizes=(2.0, 3.0, 1.0))
    assert orders(found) == [["gigatok", "vqvae"], ["gigatok", "titok"]]
    assert [len(family) for family in families_over(found, "params_tokenizer")] == [1, 1, 1]


def test_a_grid_has_ladders_along_each_axis() -> None:
    rows = ({"run_id": "r", "seed": 0, "params_tokenizer": 1.0},)
    grid = [
        Group({"tokenizer": "S-S", "codes": codes, "tokens": tokens}, rows)
        for codes in (16, 64)
        for tokens in (4, 8)
    ]
    found = [[tuple(g.identity.values())[1:] for g in ladder] for ladder in ladders(grid)]
    assert found == [
        [(16, 4), (64, 4)],
        [(16, 8), (64, 8)],
        [(16, 4), (16, 8)],
        [(64, 4), (64, 8)],
    ]


def grid(**columns: Sequence[object]) -> list[Group]:
    """Settings of one tokenizer: a column each, as long as the others."""
    return [
        Group(
            {"tokenizer": "S-S", **dict(zip(columns, values, strict=True))},
            ({"run_id": str(i), "seed": 0, **dict(zip(columns, values, strict=True))},),
        )
        for i, values in enumerate(zip(*columns.values(), strict=True))
    ]


def with_fact(found: list[Group], name: str, values: Sequence[float | None]) -> list[Group]:
    return [
        Group(group.identity, tuple({**row, name: value} for row in group.rows))
        for group, value in zip(found, values, strict=True)
    ]


def test_columns_that_vary_together_are_one_axis() -> None:
    (axis,) = axes_of(grid(depth=(1, 2, 3), width=(32, 64, 96)))
    assert axis.columns == ("depth", "width")
    assert axis.steps == (((1, 32), (3, 96)),)
    assert axis.step_words(axis.steps[0]) == "depth 1 → 3, width 32 → 96"


def test_a_family_differs_in_all_that_sets_the_quantity() -> None:
    """Tokens and codes both set the bits of an image; regularisation does not."""
    found = grid(codes=(16, 16, 64, 64) * 2, tokens=(4, 8) * 4, weight=(0,) * 4 + (1,) * 4)
    found = with_fact(found, "bits", (16, 32, 24, 48) * 2)
    families = families_over(found, "bits")
    assert [[g.rows[0]["bits"] for g in family] for family in families] == [[16, 32, 24, 48]] * 2
    assert [{g.identity["weight"] for g in family} for family in families] == [{0}, {1}]


def test_a_by_product_is_no_family() -> None:
    """A codebook that adds a hundredth of the parameters does not make sizes of a tokenizer."""
    found = with_fact(grid(codes=(16, 64, 256)), "params", (1.00, 1.01, 1.04))
    assert [len(family) for family in families_over(found, "params")] == [1, 1, 1]


def test_a_quantity_that_reads_the_seed_is_no_place_of_a_setting() -> None:
    rows = tuple({"run_id": str(s), "seed": s, "derived.odd": s % 2} for s in range(2))
    assert families_over([Group({"tokenizer": "S-S"}, rows)], "derived.odd") == []
