"""Tables for terminals: nothing is broken, and what is left out is named."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from gigatok.text.fitting import FittingTable

NAMES = ["quantizer=fsq-8x8x8 codebook_size=512", "quantizer=vq codebook_size=64"]
NUMBERS = ["1262.5 ± 44.9", "610.9 ± 133.7"]


def printed(table: FittingTable, width: int) -> list[str]:
    console = Console(file=StringIO(), width=width, markup=False)
    console.print(table)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def results() -> FittingTable:
    heads = ("trial", "rKID (x1000)", "PSNR (dB)", "codebook usage")
    table = FittingTable(
        heads,
        right=heads[1:],
        wraps=("trial",),
        drops=("codebook usage", "PSNR (dB)"),
        names={"PSNR (dB)": "psnr"},
    )
    for name, number in zip(NAMES, NUMBERS, strict=True):
        table.add_row(name, number, "18.12", "100.0")
    return table


@pytest.mark.parametrize("width", [36, 44, 60, 80, 120])
def test_no_number_no_word_of_a_head_and_of_a_name_is_ever_broken(width: int) -> None:
    lines = printed(results(), width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "…" not in text
    for whole in (*NUMBERS, *(word for name in NAMES for word in name.split()), "rKID", "(x1000)"):
        assert whole in text, whole


@pytest.mark.parametrize(
    ("width", "absent"), [(120, []), (44, ["codebook usage"]), (36, ["psnr", "codebook usage"])]
)
def test_columns_go_in_their_order_and_are_named_as_users_call_them(
    width: int, absent: list[str]
) -> None:
    *_, last = " ".join(" ".join(printed(results(), width)).split()).partition("left out at ")
    if absent:
        assert last.startswith(f"{width} columns: {', '.join(absent)}; a wider terminal or --json")
    else:
        assert last == ""


def test_words_are_on_one_line_where_there_is_room() -> None:
    lines = printed(results(), 120)
    assert [line.split("  ")[0] for line in lines[1:]] == NAMES
    assert lines[0].split("  ")[0] == "trial"


def test_heads_that_are_equal_are_columns_of_their_own() -> None:
    table = FittingTable(("", "S-S", "S-S"), wraps=("", "S-S"))
    table.add_row("key", "a", "b")
    assert printed(table, 40)[1].split() == ["key", "a", "b"]
