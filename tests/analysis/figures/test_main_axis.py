"""The axis that a study is drawn over: sizes first, else the first of the YAML that varies."""

import polars as pl
import pytest

from analysis.figures.main_axis import main_axis
from analysis.figures.scaling import choices, default_axes
from gigatok.names import METRICS, PARAM_SEED, PARAM_TOKENIZER, SIZES

QUANTIZERS = {
    "tokenizer.codebook_size": [64, 64, 512],
    "tokenizer.quantizer": ["vq", "bsq(bits=6)", "vq"],
}
SIZED = {
    PARAM_TOKENIZER: ["S-S", "S-B", "S-L"],
    "tokenizer.decoder": ["S", "B", "L"],
    "params_tokenizer": [1e6, 2e6, 3e6],
}
GRID = {
    PARAM_TOKENIZER: ["S-S", "S-B", "B-S", "B-B"],
    "tokenizer.encoder": ["S", "S", "B", "B"],
    "tokenizer.decoder": ["S", "B", "S", "B"],
    "params_decoder": [1e6, 2e6, 1e6, 2e6],
}


def table(axes: list[str], columns: dict[str, list]) -> pl.DataFrame:
    """Trials with these columns, and a PSNR."""
    height = len(next(iter(columns.values())))
    scores = {name: pl.Series([None] * height, dtype=pl.Float64) for name in (*METRICS, *SIZES)}
    common = {"axes": [axes] * height, PARAM_SEED: [0] * height, PARAM_TOKENIZER: ["S-S"] * height}
    return pl.DataFrame({**scores, **common, "psnr": [20.0] * height, **columns})


@pytest.mark.parametrize(
    ("axes", "columns", "main"),
    [
        (["tokenizer.quantizer", "tokenizer.codebook_size"], QUANTIZERS, "tokenizer.quantizer"),
        (["tokenizer.lr", "tokenizer.codebook_size"], QUANTIZERS, "tokenizer.codebook_size"),
        (["tokenizer.lr", "tokenizer.decoder"], SIZED, "params_tokenizer"),
        (["tokenizer.encoder", "tokenizer.decoder"], GRID, "params_decoder"),
        ([], SIZED, "params_tokenizer"),
    ],
)
def test_sizes_come_first_then_the_order_of_the_yaml(axes, columns, main):
    runs = table(axes, columns)
    assert main_axis(runs) == main
    assert main in choices(runs)
    assert default_axes(runs) == (main, "psnr")
