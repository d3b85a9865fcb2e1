"""`include`: cells beside the product of the axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orchestration.launching.preview import absent_lines
from orchestration.plan.graph import make_plan
from orchestration.sweep.definition import Sweep, SweepError, expand, load_sweep
from orchestration.sweep.schema import sweep_schema

HEAD = "question: q\nscale: micro\n"
GRID = """axes:
  tokenizer.decoder: [S, B]
  tokenizer.lr: [1e-3, 2e-3]
set: {tokenizer.encoder: S}
"""
LARGE = "include: [{tokenizer.decoder: L, tokenizer.lr: 5e-4}]\n"


def load(tmp_path: Path, body: str, **options: Any) -> Sweep:
    file = tmp_path / "test.yaml"
    file.write_text(HEAD + body)
    return load_sweep(file, **options)


def cells(sweep: Sweep) -> list[tuple[str, float, int]]:
    return [
        (t.config.tokenizer.name, t.config.tokenizer.lr, t.config.seed)
        for t in expand(sweep).trials
    ]


PRODUCT = [("S-S", 1e-3, 0), ("S-S", 2e-3, 0), ("S-B", 1e-3, 0), ("S-B", 2e-3, 0)]


def test_an_entry_adds_its_cell_behind_the_product(tmp_path: Path) -> None:
    sweep = load(tmp_path, GRID + LARGE)
    assert cells(sweep) == [*PRODUCT, ("S-L", 5e-4, 0)]
    assert sweep.include == ({"tokenizer.decoder": ("L",), "tokenizer.lr": (5e-4,)},)
    assert [trial.name for trial in expand(sweep).trials][-2:] == ["S-B lr=0.002", "S-L lr=0.0005"]


def test_what_an_entry_leaves_out_is_the_scales_or_sets(tmp_path: Path) -> None:
    body = GRID + "include: [{tokenizer.decoder: L, generator.lr: 7e-4, tokenizer.encoder: B}]\n"
    sweep = load(tmp_path, body)
    last, first = expand(sweep).trials[-1], expand(sweep).trials[0]
    scale_lr = load_sweep("decoder_scaling").expansion.trials[0].config.tokenizer.lr
    assert last.config.tokenizer.lr == scale_lr
    assert last.config.tokenizer.name == "B-L"
    assert last.config.generator.lr == 7e-4
    keys = ("tokenizer.decoder", "tokenizer.lr", "generator.lr", "tokenizer.encoder")
    assert sweep.varied == keys
    assert tuple(first.axes) == tuple(last.axes) == (*keys, "seed")
    assert first.axes["generator.lr"] == first.config.generator.lr
    assert (first.axes["tokenizer.encoder"], last.axes["tokenizer.encoder"]) == ("S", "B")


def test_lists_make_a_grid_and_seeds_apply(tmp_path: Path) -> None:
    body = GRID + "include: [{tokenizer.decoder: L, tokenizer.lr: [3e-3, 4e-3]}]\nseeds: [0, 1]\n"
    added = [cell for cell in cells(load(tmp_path, body)) if cell[0] == "S-L"]
    assert added == [("S-L", lr, seed) for lr in (3e-3, 4e-3) for seed in (0, 1)]


def test_a_list_may_be_one_value(tmp_path: Path) -> None:
    body = "set: {tokenizer.encoder: S, tokenizer.decoder: S}\ninclude:\n"
    body += (
        "  - {tokenizer.cnn.multipliers: [1, 2]}\n  - {tokenizer.cnn.multipliers: [[1], [2]]}\n"
    )
    trials = expand(load(tmp_path, body)).trials
    assert [t.config.tokenizer.cnn.multipliers for t in trials] == [(1, 2), (1,), (2,)]


def test_equal_cells_are_one(tmp_path: Path) -> None:
    body = GRID + "include:\n  - {tokenizer.decoder: [B, L], tokenizer.lr: 1e-3}\n"
    body += "  - {tokenizer.decoder: L, tokenizer.lr: [1e-3, 3e-3], tokenizer.encoder: S}\n"
    sweep = load(tmp_path, body)
    assert cells(sweep) == [*PRODUCT, ("S-L", 1e-3, 0), ("S-L", 3e-3, 0)]
    assert len({trial.name for trial in expand(sweep).trials}) == 6


def test_entries_alone_are_the_whole_sweep(tmp_path: Path) -> None:
    body = "include:\n  - {tokenizer.encoder: S, tokenizer.decoder: B}\n"
    body += "  - {tokenizer.encoder: B, tokenizer.decoder: S}\n"
    assert [trial.name for trial in expand(load(tmp_path, body)).trials] == ["S-B", "B-S"]


def test_keys_of_the_product_stay_and_equal_those_of_an_axis(tmp_path: Path) -> None:
    def keys(body: str) -> list[str]:
        sweep = load(tmp_path, body)
        return [trial.key for trial in make_plan(sweep, expand(sweep)).trials]

    before, after = keys(GRID), keys(GRID + LARGE)
    assert after[:4] == before
    listed = keys(GRID.replace("S, B", "S, B, L").replace("[1e-3", "[5e-4, 1e-3"))
    assert after[4] == listed[6]


def test_exclude_drops_added_cells_by_values_that_they_do_not_name(tmp_path: Path) -> None:
    scale_lr = load_sweep("decoder_scaling").expansion.trials[0].config.tokenizer.lr
    body = GRID.replace("2e-3", f"{scale_lr}") if scale_lr != 1e-3 else GRID
    body += f"include: [{{tokenizer.decoder: [L]}}, {LARGE[10:-2]}]\n"
    body += f"exclude: [{{tokenizer.lr: {scale_lr}}}]\n"
    expansion = expand(load(tmp_path, body))
    assert {cell["tokenizer.decoder"] for cell in expansion.excluded} == {"S", "B", "L"}
    assert all(cell["tokenizer.lr"] == scale_lr for cell in expansion.excluded)
    assert len(expansion.trials) + len(expansion.excluded) == 6


def test_a_cell_that_is_excluded_already_is_listed_once(tmp_path: Path) -> None:
    body = GRID + "include: [{tokenizer.decoder: B, tokenizer.lr: 2e-3}]\n"
    body += "exclude: [{tokenizer.decoder: B, tokenizer.lr: 2e-3}]\n"
    expansion = expand(load(tmp_path, body))
    assert (len(expansion.trials), len(expansion.excluded)) == (3, 1)


def test_a_cell_that_is_there_already_is_said_to_be(tmp_path: Path) -> None:
    body = GRID + "include: [{tokenizer.decoder: [B, L], tokenizer.lr: 2e-3}]\n"
    sweep = load(tmp_path, body)
    (there,) = expand(sweep).repeated
    assert (there["tokenizer.decoder"], there["tokenizer.lr"]) == ("B", 2e-3)
    assert len(expand(sweep).trials) == 5
    (line,) = absent_lines(make_plan(sweep, expand(sweep)))
    assert line == "there already, from `include`: tokenizer.decoder=B tokenizer.lr=0.002 seed=0"


def test_an_entry_may_have_seeds_of_its_own(tmp_path: Path) -> None:
    body = GRID.replace(", 2e-3]", "]") + "seeds: [0, 1]\ninclude:\n"
    body += "  - {tokenizer.decoder: B, tokenizer.lr: 1e-3, seed: [1, 2]}\n"
    body += "  - {tokenizer.decoder: L, tokenizer.lr: 1e-3, seed: 5}\n"
    sweep = load(tmp_path, body)
    product = [("S-S", 0), ("S-S", 1), ("S-B", 0), ("S-B", 1)]
    assert [(name, seed) for name, _, seed in cells(sweep)] == [*product, ("S-B", 2), ("S-L", 5)]
    # The second seed is one of the product's.
    (there,) = expand(sweep).repeated
    assert there["seed"] == 1
    assert [trial.name for trial in expand(sweep).trials][-2:] == ["S-B seed=2", "S-L seed=5"]
    assert sweep.include[1]["seed"] == (5,)
    assert "seed" not in sweep.varied
    jsonschema.validate({"question": "q", "include": [{"seed": [1, 2]}]}, sweep_schema())
    one = load(tmp_path, body, overrides=("seed=7",))
    assert {seed for *_, seed in cells(one)} == {7}


FORMULAS = """derive: {share: params.decoder / params.encoder}
where: [share < 2.5]
solve:
  tokenizer.steps: {make: flops.train, equal: 3e13, within: 0.05, between: [10, 100_000]}
"""


def test_where_derive_and_solve_apply(tmp_path: Path) -> None:
    body = GRID + FORMULAS + "include: [{tokenizer.decoder: L}, {tokenizer.encoder: L, "
    expansion = expand(load(tmp_path, body + "tokenizer.decoder: L}]\n"))
    dropped = [(cell.axes["tokenizer.encoder"], cell.by) for cell in expansion.dropped]
    assert ("S", "share < 2.5") in dropped
    assert len(expansion.trials) + len(expansion.dropped) == 6
    last = expansion.trials[-1]
    assert last.config.tokenizer.name == "L-L"
    assert last.derived["share"] == pytest.approx(1.12, abs=0.01)
    assert last.solved[0].made == pytest.approx(3e13, rel=0.05)
    assert last.config.tokenizer.steps == last.solved[0].value


def test_set_on_the_command_line_replaces_the_values_of_entries(tmp_path: Path) -> None:
    sweep = load(tmp_path, GRID + LARGE, overrides=("tokenizer.lr=9e-4", "seed=3"))
    assert cells(sweep) == [("S-S", 9e-4, 3), ("S-B", 9e-4, 3), ("S-L", 9e-4, 3)]


def test_at_replaces_it(tmp_path: Path) -> None:
    body = GRID + LARGE + "at:\n  smoke: {include: null}\n"
    assert len(expand(load(tmp_path, body)).trials) == 5
    assert len(expand(load(tmp_path, body, scale="smoke")).trials) == 4


WRONG = {
    "no list": (
        "include: {tokenizer.decoder: L}\n",
        "include: got {tokenizer.decoder: 'L'}; must be a list of mappings; "
        "write `- {tokenizer.decoder: L, generator.size: S}`",
    ),
    "no mapping": ("include: [L]\n", "include[0]: got 'L'; must be a mapping"),
    "empty": (
        "include: [{}]\n",
        "include[0]: is empty; name keys and values, such as {tokenizer.decoder: L}",
    ),
    "unknown key": (
        "include: [{tokenizer.decodr: L}]\n",
        "include[0].tokenizer.decodr: unknown key; keys of tokenizer, nearest first: "
        "tokenizer.decoder",
    ),
    "a seed alone": (
        "include: [{seed: 1}]\n",
        "include[0]: names no setting; name its keys beside seed, or use `seeds` of the sweep",
    ),
    "no seed": (
        "include: [{tokenizer.decoder: L, seed: []}]\n",
        "include[0].seed: is empty; give at least one, such as [0]",
    ),
    "a wrong seed": (
        "include: [{tokenizer.decoder: L, seed: [-1]}]\n",
        "include[0].seed: got -1; must be a whole number of at least 0",
    ),
    "own seeds where claims choose": (
        "include: [{tokenizer.decoder: L, seed: 4}]\nseeds: {start: 2, until: decided, "
        "at_most: 3}\nclaims: {helps: psnr at tokenizer.decoder=B is higher than at S}\n",
        "include[0]: has seeds of its own, and `seeds: {until: decided}` chooses them",
    ),
    "wrong type": (
        "include: [{tokenizer.steps: many}]\n",
        "include[0].tokenizer.steps: got 'many'; must be a whole number of at least 1",
    ),
    "unknown size": (
        "include: [{tokenizer.decoder: Q}]\n",
        "include[0].tokenizer.decoder: got 'Q'; sizes of scale micro: S, B, L",
    ),
    "no value": (
        "include: [{tokenizer.lr: []}]\n",
        "include[0].tokenizer.lr: is empty; give at least one value",
    ),
    "a value twice": (
        "include: [{tokenizer.decoder: L, tokenizer.lr: [1e-3, 1e-3]}]\n",
        "include[0].tokenizer.lr: got 0.001 twice; values must differ",
    ),
    "runtime key": (
        "include: [{tokenizer.log_every: 3}]\n",
        "include[0].tokenizer.log_every: changes how a stage runs, not what it computes",
    ),
    "an entry twice": (
        "include: [{tokenizer.decoder: L, tokenizer.lr: [1e-3, 3e-3]}, "
        "{tokenizer.lr: [3e-3, 1e-3], tokenizer.decoder: L}]\n",
        "include[1]: is include[0] of line 7 again; keep one",
    ),
    "solved for": (
        "include: [{tokenizer.decoder: L, tokenizer.steps: 10}]\n" + FORMULAS,
        "include[0].tokenizer.steps: is solved for at line 11; keep one",
    ),
    "no value of an axis": (
        "include: [{tokenizer.lr: 3e-3}]\n",
        "include[0]: lacks tokenizer.decoder, which scale micro does not give; must be a size; "
        "name it in the entry",
    ),
    "beside a search": (
        LARGE + "search: {space: {generator.lr: {low: 1e-4, high: 1e-2}}, "
        "objectives: [ar_val_loss], budget: {trials: 2}}\n",
        "include: a search lists no cells; remove it, or put its keys into `space` or `set`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_with_file_line_and_key(case: str, tmp_path: Path) -> None:
    body, message = WRONG[case]
    with pytest.raises(SweepError) as caught:
        load(tmp_path, GRID + body)
    assert f"{tmp_path}/test.yaml:7: {message}" in [
        str(problem)[: len(f"{tmp_path}/test.yaml:7: {message}")]
        for problem in caught.value.problems
    ], str(caught.value)


def test_a_wrong_combination_is_blamed_on_the_entry(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match=r"test.yaml:7: include\[0\].tokenizer.semantic_layer: "):
        load(tmp_path, GRID + "include: [{tokenizer.decoder: L, tokenizer.semantic_layer: 50}]\n")


def test_the_schema_knows_it() -> None:
    entry = {"tokenizer.decoder": "L", "tokenizer.lr": [1e-3, 2e-3]}
    schema = jsonschema.Draft202012Validator(sweep_schema())
    schema.validate({"question": "q", "include": [entry]})
    for bad in ({"tokenizer.decodr": "L"}, {"tokenizer.log_every": 1}, {"tokenizer.steps": 0}):
        with pytest.raises(jsonschema.ValidationError):
            schema.validate({"question": "q", "include": [bad]})
