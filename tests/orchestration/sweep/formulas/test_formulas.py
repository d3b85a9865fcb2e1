"""`derive`, `where` and `solve`: known answers, properties, and messages about mistakes."""

from __future__ import annotations

import itertools
import math
import os
import random
from pathlib import Path
from typing import Any

import pytest

from gigatok.stages import STAGES
from orchestration.plan.graph import make_plan
from orchestration.sweep.definition import Sweep, SweepError, expand, load_sweep
from orchestration.sweep.formulas.expressions import ExpressionError, read_expression
from orchestration.sweep.formulas.quantities import quantities
from orchestration.sweep.formulas.solving import changed
from orchestration.sweep.settings.keys import trial_keys

HEAD = "question: q\nscale: micro\n"
SIZES = "axes: {tokenizer.encoder: [S, B], tokenizer.decoder: [S, B, L]}\n"
LAYERS = "solve:\n  tokenizer.decoder.layers: "


def load(tmp_path: Path, body: str, **options: Any) -> Sweep:
    file = tmp_path / "sweep.yaml"
    file.write_text(HEAD + body)
    return load_sweep(file, **options)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3 ** 2", 19),
        ("-2 ** 2", -4),
        ("2 ** -1", 0.5),
        ("2 ** 3 ** 2", 512),
        ("8 / 2 / 2", 2),
        ("7 - 2 - 1", 4),
        ("1_000 + .5e1", 1005),
        ("1 < 2 < 3 and not 1 < 3 < 2", True),
        ("true or 1 / 0 > 1", True),
        ("x in [1, 2] and y not in ['L']", True),
        ("y == \"S\" and y != 'B'", True),
        ("null == x", False),
        ("min(3, 1, 2) + max(1, 2) + abs(-4)", 7),
        ("log2(8) + log(1) + sqrt(9)", 6),
        ("[round(2.6), floor(2.6), ceil(2.1)] == [3, 2, 3]", True),
    ],
)
def test_expressions_come_to(text: str, value: object) -> None:
    assert read_expression(text).value({"x": 2, "y": "S"}.__getitem__) == value


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 0, "ends too early; a value or a name belongs here"),
        ("1 +", 3, "ends too early"),
        ("(1 + 2", 6, "must be ')', for the '(' opened before"),
        ("1 2", 2, "unexpected '2'; an operator belongs here"),
        ("x = 2", 2, "write == to compare"),
        ("x && y", 2, "write `and`"),
        ("x % 2", 2, "there is no remainder"),
        ("y == 'S", 5, "the quote is not closed"),
        ("1 not 2", 2, "`not` here must be followed by `in`"),
        ("flor(1)", 0, "did you mean 'floor'?"),
        ("log(1, 2)", 0, "log takes one number, got 2"),
        ("min(1)", 0, "min takes at least 2 numbers"),
        ("(" * 60 + "1" + ")" * 60, 40, "nested more than 40 levels deep"),
        ("1" + "+1" * 200, 300, "more than 300 words and signs"),
        ("1" * 3000, 2000, "longer than 2,000 characters"),
        ("2 + 1 / (x - 2)", 6, "1 / 0 divides by zero"),
        ("9 ** 9 ** 9", 2, "is too large"),
        ("1e300 * 1e300", 6, "is too large"),
        ("1e999", 0, "is too large"),
        ("0 ** -1", 2, "divides by zero"),
        ("(-8) ** 0.5", 5, "not a real number"),
        ("log(0)", 0, "not a real number"),
        ("y + 1", 0, "+ takes numbers, got 'S'"),
        ("y < 1", 2, "< takes numbers, got 'S'"),
        ("y == 1", 2, "compares a text with a number"),
        ("x and true", 0, "`and` takes true or false, got 2"),
        ("x in 3", 2, "`in` takes a list on its right"),
    ],
)
def test_wrong_expressions_are_pointed_at(text: str, position: int, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        read_expression(text).value({"x": 2, "y": "S"}.__getitem__)
    assert message in caught.value.text
    assert abs(caught.value.position - position) <= (1 if "300" in message else 0)


def test_derived_values_are_those_of_the_trial(tmp_path: Path) -> None:
    body = SIZES + (
        "derive:\n  twice: 2 * share\n  share: params.decoder / params.tokenizer\n"
        "  train: flops.train\n  same: tokenizer.encoder == tokenizer.decoder\n"
    )
    trials = expand(load(tmp_path, body)).trials
    assert len(trials) == 6
    for trial in trials:
        assert trial.derived["twice"] == 2 * trial.derived["share"]
        assert trial.derived["train"] == STAGES["train_tokenizer"].costs.flops(trial.config)
        names = (trial.config.tokenizer.encoder.name, trial.config.tokenizer.decoder.name)
        assert trial.derived["same"] == (names[0] == names[1])


def test_where_keeps_cells_and_lists_the_others_before_they_are_checked(tmp_path: Path) -> None:
    body = SIZES + (
        "set: {tokenizer.semantic_layer: 3}\n"  # beyond the decoder of S, which where drops
        "where:\n  - tokenizer.semantic_layer <= tokenizer.decoder.layers\n"
        "  - tokenizer.decoder != 'L' or tokenizer.encoder == 'S'\n"
    )
    expansion = expand(load(tmp_path, body))
    assert [trial.name for trial in expansion.trials] == ["S-B", "S-L", "B-B"]
    assert [(*cell.axes.values(), cell.by[:20]) for cell in expansion.dropped] == [
        ("S", "S", 0, "tokenizer.semantic_l"),
        ("B", "S", 0, "tokenizer.semantic_l"),
        ("B", "L", 0, "tokenizer.decoder !="),
    ]


def test_solutions_are_the_nearest_whole_numbers(tmp_path: Path) -> None:
    body = (
        SIZES
        + LAYERS
        + (
            "{make: params.tokenizer, equal: 3e6, within: 0.04}\n"
            "  tokenizer.steps: {make: flops.train, equal: 4e13, within: 0.001}\n"
        )
    )
    trials = expand(load(tmp_path, body)).trials
    assert len({trial.name for trial in trials}) == 6
    for trial in trials:
        layers, steps = trial.solved
        config = trial.config
        assert config.tokenizer.decoder.layers == layers.value
        assert config.tokenizer.steps == steps.value
        assert steps.made == STAGES["train_tokenizer"].costs.flops(config)
        for solution, of in ((layers, "params.tokenizer"), (steps, "flops.train")):
            gaps = [
                abs(
                    quantities()[of].of(_with(config, solution.key, solution.value + step))
                    - solution.target
                )
                for step in (-1, 0, 1)
            ]
            assert min(gaps) == gaps[1]


def _with(config: Any, key: str, value: int) -> Any:
    return changed(config, key, value)


def test_a_width_is_solved_in_whole_heads(tmp_path: Path) -> None:
    body = "set: {tokenizer.encoder: S, tokenizer.decoder: B}\nsolve:\n"
    body += "  tokenizer.decoder.width: {make: params.decoder, equal: 4e6, within: 0.2}\n"
    (trial,) = expand(load(tmp_path, body)).trials
    decoder = trial.config.tokenizer.decoder
    assert (decoder.width // decoder.heads, decoder.layers, decoder.name) == (32, 3, "")
    assert trial.name == f"S-{decoder.width}x3x{decoder.heads}"


def test_set_on_the_command_line_wins_over_solve(tmp_path: Path) -> None:
    body = SIZES + "solve: {tokenizer.steps: {make: flops.train, equal: 4e13}}\n"
    trials = expand(load(tmp_path, body, overrides=["tokenizer.steps=77"])).trials
    assert {trial.config.tokenizer.steps for trial in trials} == {77}


def test_at_replaces_the_formulas(tmp_path: Path) -> None:
    body = SIZES + "where: [tokenizer.decoder == 'S']\nat: {mini: {where: null}}\n"
    assert len(expand(load(tmp_path, body)).trials) == 2
    assert len(expand(load(tmp_path, body, scale="mini")).trials) == 6


# Each: body, line, key, and parts of the message.
WRONG: dict[str, tuple[str, int, str, tuple[str, ...]]] = {
    "unknown name": (
        SIZES + "where:\n  - params.decodr > 1\n", 5, "where[0]",
        ("column 5: unknown name 'params.decodr'", "did you mean 'params.decoder'?",
         "\n      params.decodr > 1\n      ^"),
    ),
    "unknown name behind a quote": (
        SIZES + "where: ['1 < tokens < stps']\n", 4, "where[0]",
        ("column 23: unknown name 'stps'", "\n                   ^"),
    ),
    "never equal": (
        SIZES + "where: [tokenizer.variant == '3d']\n", 4, "where[0]",
        ("tokenizer.variant is never '3d'; it is one of '1d', '2d'",),
    ),
    "where is a number": (
        SIZES + "where: [tokens]\n", 4, "where[0]", ("must be true or false, comes to 32",),
    ),
    "where is no expression": (
        SIZES + "where: [[1]]\n", 4, "where[0]", ("must be an expression",),
    ),
    "where drops all": (
        SIZES + "where: [tokens > 99]\n", 4, "where", ("all 6 combinations are excluded",),
    ),
    "derive takes a key": (
        SIZES + "derive: {seed: 1}\n", 4, "derive.seed", ("is a name already",),
    ),
    "derive is no name": (
        SIZES + "derive: {a.b: 1}\n", 4, "derive.a.b", ("is no name; must be letters",),
    ),
    "derive in a circle": (
        SIZES + "derive: {a: b + 1, b: a + 1}\n", 4, "derive.", ("depends on itself: ",),
    ),
    "derive divides by zero": (
        SIZES + "derive: {a: 1 / (tokenizer.decoder.layers - 3)}\n", 4, "derive.a",
        ("1 / 0 divides by zero", "(at tokenizer.decoder='B')"),
    ),
    "solve an axis": (
        SIZES
        + "set: {tokenizer.steps: 5}\nsolve: {tokenizer.steps: {make: flops.train, equal: 1}}\n",
        5, "solve.tokenizer.steps", ("given twice; line 4 has it already",),
    ),
    "solve a rate": (
        SIZES + "solve: {tokenizer.lr: {make: flops.train, equal: 1}}\n", 4, "solve.tokenizer.lr",
        ("cannot be solved for; must be width or layers",),
    ),
    "solve without a target": (
        SIZES + LAYERS + "{make: params.decoder}\n", 5, "solve.tokenizer.decoder.layers.equal",
        ("missing; `make`",),
    ),
    "solve with an unknown part": (
        SIZES + LAYERS + "{make: params.decoder, equals: 1e6}\n", 5,
        "solve.tokenizer.decoder.layers.equals", ("did you mean 'equal'?",),
    ),
    "solve what does not depend": (
        SIZES + LAYERS + "{make: data.image_size, equal: 1e6}\n", 5,
        "solve.tokenizer.decoder.layers.make", ("does not depend on tokenizer.decoder.layers",),
    ),
    "solve what stays the same": (
        SIZES + LAYERS + "{make: tokenizer.decoder.width, equal: 64}\n", 5,
        "solve.tokenizer.decoder.layers.make", ("is the same for every tokenizer.decoder.layers",),
    ),
    "solve within a word": (
        SIZES + LAYERS + "{make: params.decoder, equal: 1e6, within: 5%}\n", 5,
        "solve.tokenizer.decoder.layers.within", ("got '5%'; must be a number from 0",),
    ),
    "solve between the wrong way": (
        SIZES + LAYERS + "{make: params.decoder, equal: 1e6, between: [9, 2]}\n", 5,
        "solve.tokenizer.decoder.layers.between", ("got [9, 2]; must be two whole numbers",),
    ),
    "solve beyond reach": (
        SIZES + LAYERS + "{make: params.decoder, equal: 100}\n", 5,
        "solve.tokenizer.decoder.layers",
        ("no whole number from 1 to 512 comes within 5.00% of 100: 1 gives",),
    ),
    "solve too coarse": (
        SIZES + LAYERS + "{make: params.decoder, equal: 1e6, within: 0}\n", 5,
        "solve.tokenizer.decoder.layers", ("comes within 0.00% of 1e+06", "(-", "(+"),
    ),
    "solve in a circle": (
        SIZES + "solve:\n  tokenizer.steps: {make: flops.train, equal: generator.steps * 1e9}\n"
        "  generator.steps: {make: flops.generator, equal: tokenizer.steps * 1e9}\n",
        5, "solve.", ("sets, which reads it",),
    ),
    "solve one size twice": (
        SIZES + LAYERS + "{make: params.decoder, equal: 1e6}\n"
        "  tokenizer.decoder.width: {make: params.decoder, equal: 1e6}\n", 6,
        "solve.tokenizer.decoder.width", ("changes tokenizer.decoder, as solve",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_formulas(case: str, tmp_path: Path) -> None:
    body, line, key, parts = WRONG[case]
    with pytest.raises(SweepError) as caught:
        load(tmp_path, body)
    found = [p for p in caught.value.problems if p.key.startswith(key)]
    assert found, str(caught.value)
    if "circle" not in case:
        assert found[0].place.line == line
    for part in parts:
        assert part in found[0].text


@pytest.mark.parametrize("name", [*quantities()])
def test_a_quantity_changes_only_with_the_keys_that_it_reads(name: str, tmp_path: Path) -> None:
    (trial, *_) = expand(load(tmp_path, SIZES)).trials
    before = quantities()[name].of(trial.config)
    for key, known in trial_keys().items():
        if key.startswith("adopt."):
            continue
        value: Any = trial.config
        for part in key.split("."):
            value = getattr(value, part)
        if known.is_size:
            others = [value.model_copy(update={"layers": value.layers + 1})]
        elif "enum" in known.schema:
            # A folder of images needs a path as well.
            others = [i for i in known.schema["enum"] if i not in (value, "folder")]
        elif isinstance(value, bool):
            others = [not value]
        elif isinstance(value, int | float):
            others = [value + 1, value * 2]
        else:
            continue
        for other in others:
            if quantities()[name].of(changed(trial.config, key, other)) != before:
                assert key in quantities()[name].reads, key


AXES: dict[str, list[Any]] = {
    "tokenizer.encoder": ["S", "B", "L"],
    "tokenizer.decoder": ["B", "L"],
    "tokenizer.lr": [0.001, 0.002, 0.004],
    "generator.size": ["B", "L"],
    "generator.steps": [100, 200],
    "sampling.cfg_scale": [1.5, 2.0],
    "probe.lr": [0.1, 0.2],
}
READERS = {  # the stages whose own config has a key, and those behind them
    "sampling.cfg_scale": {"evaluate_generation"},
    "probe.lr": {"linear_probe"},
    "generator.steps": {"train_generator", "evaluate_generation", "linear_probe"},
}
WHERE = {
    "tokens == 32": lambda trial: True,
    "tokenizer.lr < 0.003": lambda trial: trial.tokenizer.lr < 0.003,
    "params.encoder < 1e6 or generator.steps > 100": lambda trial: (
        quantities()["params.encoder"].of(trial) < 1e6 or trial.generator.steps > 100
    ),
    "size < 0.6": lambda trial: _share(trial) < 0.6,
}


def _share(trial: Any) -> float:
    params = quantities()
    return float(params["params.decoder"].of(trial) / params["params.tokenizer"].of(trial))


def _random_sweep(rng: random.Random) -> dict[str, Any]:
    axes = {key: rng.sample(AXES[key], rng.randint(1, 2)) for key in rng.sample([*AXES], 3)}
    given = {"tokenizer.encoder": "S", "tokenizer.decoder": "B", "probe.method": "lars"}
    parts: dict[str, Any] = {
        "axes": axes,
        "set": {key: value for key, value in given.items() if key not in axes},
        "derive": {"size": "params.decoder / params.tokenizer"},
        "where": rng.sample([*WHERE], rng.randint(0, 3)),
    }
    if rng.random() < 0.5:
        cells = itertools.product(*(AXES[key] for key in axes))
        parts["include"] = [dict(zip(axes, cell, strict=True)) for cell in rng.sample([*cells], 3)]
    if rng.random() < 0.5:
        parts["solve"] = {"tokenizer.steps": {"make": "flops.train", "equal": 3e13}}
    return parts


def _plan(tmp_path: Path, parts: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    import json

    file = tmp_path / "random.yaml"
    file.write_text(
        HEAD + "".join(f"{key}: {json.dumps(value)}\n" for key, value in parts.items())
    )
    try:
        sweep = load_sweep(file)
    except SweepError as error:
        assert "combinations are excluded" in str(error)  # noqa: PT017
        return None, {}
    expansion = expand(sweep)
    plan = make_plan(sweep, expansion)
    return expansion, {json.dumps(t.trial.axes, sort_keys=True): t.stages for t in plan.trials}


def _sweeps(tmp_path: Path, number: int, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(number):
        parts = _random_sweep(rng)
        expansion, stages = _plan(tmp_path, parts)
        if expansion is None:
            continue
        added = [tuple(cell[key] for key in parts["axes"]) for cell in parts.get("include", [])]
        cells = math.prod(len(values) for values in parts["axes"].values()) + len(added)
        lists = (expansion.trials, expansion.dropped, expansion.repeated)
        assert sum(map(len, lists)) == cells
        kept = {tuple(t.axes[key] for key in parts["axes"]) for t in expansion.trials}
        gone = {tuple(c.axes[key] for key in parts["axes"]) for c in expansion.dropped}
        product = set(itertools.product(*parts["axes"].values()))
        assert kept | gone == product | set(added)
        assert not kept & gone
        again = {tuple(cell[key] for key in parts["axes"]) for cell in expansion.repeated}
        assert again <= set(added)
        for trial in expansion.trials:
            assert all(WHERE[text](trial.config) for text in parts["where"])
        mixed = {k: _shuffled(v, rng) for k, v in rng.sample([*parts.items()], len(parts))}
        assert _plan(tmp_path, mixed)[1] == stages
        key = rng.choice([*READERS])
        if key in parts["axes"] or any(key in text for text in parts["where"]):
            continue
        value = rng.choice([3.0, 4.0]) if key != "generator.steps" else 300
        _, other = _plan(tmp_path, {**parts, "set": {**parts["set"], key: value}})
        for name, keys in stages.items():
            changes = {stage for stage in keys if keys[stage] != other[name][stage]}
            assert changes == READERS[key]


def _shuffled(part: Any, rng: random.Random) -> Any:
    if isinstance(part, dict):
        return dict(rng.sample([*part.items()], len(part)))
    return rng.sample(part, len(part))


@pytest.mark.heavy
def test_random_sweeps_account_for_every_cell_and_keep_their_keys(tmp_path: Path) -> None:
    _sweeps(tmp_path, 60, seed=0)


@pytest.mark.slow
def test_many_random_sweeps(tmp_path: Path) -> None:
    _sweeps(tmp_path, int(os.environ.get("GIGATOK_RANDOM_SWEEPS", "300")), seed=1)
