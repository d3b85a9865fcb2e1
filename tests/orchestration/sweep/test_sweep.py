"""Sweeps and scales: expansion, precedence, names, speed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gigatok.names import FigureChoice
from gigatok.stages import STAGES
from orchestration.sweep.definition import SWEEPS_DIR, Sweep, SweepError, expand, load_sweep
from orchestration.sweep.schema import scale_schema, schema_files, sweep_schema
from orchestration.yaml.source import Place, Problem, display, parse, scalar

SHIPPED = sorted(SWEEPS_DIR.glob("*.yaml"))
SCALES = sorted((SWEEPS_DIR / "scales").glob("*.yaml"))
PAIR = "axes: {tokenizer.encoder: [S], tokenizer.decoder: [S, B]}"


def load(tmp_path: Path, body: str, **options: Any) -> Sweep:
    file = tmp_path / "test.yaml"
    file.write_text(f"question: q\nscale: micro\n{body}\n")
    return load_sweep(file, **options)


def names(sweep: Sweep) -> list[str]:
    return [trial.name for trial in expand(sweep).trials]


def plain(text: str) -> Any:
    node = parse(text, Place("text", 1), [])
    assert node is not None
    return node.plain()


@pytest.mark.parametrize("scale", [path.stem for path in SCALES])
@pytest.mark.parametrize("sweep", [path.stem for path in SHIPPED])
def test_every_shipped_sweep_expands_at_every_scale(sweep: str, scale: str) -> None:
    loaded = load_sweep(sweep, scale=scale)
    trials = expand(loaded).trials
    assert loaded.scale == scale
    assert loaded.scale_description
    assert len({trial.name for trial in trials}) == len(trials)
    assert (len(trials) == 1) == (loaded.search is not None)


def test_decoder_scaling_varies_the_decoder_only() -> None:
    sweep = load_sweep("decoder_scaling", "mini")
    assert names(sweep) == ["S-S", "S-B", "S-L"]
    assert sweep.name == "decoder_scaling"
    assert sweep.paper == "Table 2"
    assert sweep.stages == tuple(STAGES)
    assert sweep.varied == ("tokenizer.encoder", "tokenizer.decoder")
    first, _, last = (trial.config for trial in expand(sweep).trials)
    assert (first.tokenizer.encoder, first.generator) == (last.tokenizer.encoder, last.generator)
    assert last.tokenizer.decoder.name == "L"
    assert first.tokenizer.semantic_weight == 0.5


def test_the_main_job_has_seeds_and_no_regularisation() -> None:
    sweep = load_sweep("decoder_scaling")
    pairs = product(("S-S", "S-L"), (0, 1))
    assert names(sweep) == [f"{name} seed={seed}" for name, seed in pairs]
    assert {trial.config.tokenizer.semantic_weight for trial in expand(sweep).trials} == {0}


@pytest.mark.parametrize("scale", [path.stem for path in SCALES])
def test_tokenizer_scaling_shares_trials_with_decoder_scaling(scale: str) -> None:
    every = [trial.config for trial in expand(load_sweep("decoder_scaling", scale)).trials]
    decoders = [config for config in every if config.seed == 0]
    both = [trial.config for trial in expand(load_sweep("tokenizer_scaling", scale)).trials]
    shared = [config in both for config in decoders]
    assert shared == ([True, False] if scale == "micro" else [True, True, False])


def test_paper_scale_is_the_published_recipe() -> None:
    configs = {
        trial.name: trial.config for trial in expand(load_sweep("decoder_scaling", "paper")).trials
    }
    lengths = {name: (c.tokenizer.steps, c.tokenizer.batch_size) for name, c in configs.items()}
    # Table 9: epochs of 1.28 M images.
    epochs = {name: steps * batch / 1_280_000 for name, (steps, batch) in lengths.items()}
    assert epochs == {"S-S": 100, "S-B": 200, "S-L": 200}
    assert configs["S-S"].tokenizer.cnn.downsampling == 16
    assert configs["S-L"].generator.steps * configs["S-L"].generator.batch_size == 50 * 1_280_000


def test_xl_xxl_recipe_needs_entropy_and_warmup() -> None:
    overrides = ("tokenizer.encoder=XL", "tokenizer.decoder=XXL")
    (trial,) = expand(load_sweep("decoder_scaling", "paper", overrides)).trials
    assert (trial.config.tokenizer.entropy_weight, trial.config.tokenizer.warmup_steps) == (
        0.005,
        5000,
    )
    assert trial.config.tokenizer.steps * 256 == 300 * 1_280_000


def test_smoke_scale_needs_no_download() -> None:
    for trial in expand(load_sweep("decoder_scaling", "smoke")).trials:
        config = trial.config
        assert config.data.name == "digits"
        assert config.tokenizer.teacher == "pixels"
        assert config.tokenizer.perceptual_weight == 0
        assert (config.evaluation.network, config.evaluation.lpips_network) == ("pixels", "none")


def test_own_scales_add_to_the_shipped_ones(tmp_path: Path) -> None:
    scales = tmp_path / "scales"
    scales.mkdir()
    text = (SWEEPS_DIR / "scales" / "smoke.yaml").read_text()
    (scales / "tiny.yaml").write_text(text)
    (scales / "smoke.yaml").write_text(text.replace("steps: 12", "steps: 77"))
    shipped, own = load(tmp_path, PAIR, scale="micro"), load(tmp_path, PAIR, scale="tiny")
    assert (shipped.scale, shipped.own_scale) == ("micro", None)
    assert (own.scale, own.own_scale) == ("tiny", scales / "tiny.yaml")
    instead = load(tmp_path, PAIR, scale="smoke")
    assert instead.own_scale == scales / "smoke.yaml"
    assert instead.expansion.trials[0].config.tokenizer.steps == 77
    with pytest.raises(SweepError) as caught:
        load(tmp_path, PAIR, scale="tny")
    shown = display(SWEEPS_DIR / "scales")
    listed = f"scales in {scales}: smoke, tiny; in {shown}: micro, mini, paper, smoke"
    assert listed in str(caught.value)
    assert "did you mean 'tiny'?" in str(caught.value)


def test_precedence_scale_recipe_set_axes_override(tmp_path: Path) -> None:
    scales = tmp_path / "scales"
    scales.mkdir()
    text = (SWEEPS_DIR / "scales" / "micro.yaml").read_text()
    (scales / "micro.yaml").write_text(text + "\nrecipes: {S-B: {steps: 7, batch_size: 8}}\n")
    body = f"{PAIR}\nset: {{tokenizer.batch_size: 16}}"
    plain_trials = expand(load(tmp_path, body)).trials
    got = [(t.config.tokenizer.steps, t.config.tokenizer.batch_size) for t in plain_trials]
    assert got == [(700, 16), (7, 16)]
    overridden = expand(load(tmp_path, body, overrides=("tokenizer.steps=9",))).trials
    assert [t.config.tokenizer.steps for t in overridden] == [9, 9]


AT = f"""{PAIR}
set: {{tokenizer.batch_size: 16}}
seeds: [0, 1]
at:
  smoke:
    set: {{tokenizer.lr: 1e-3}}
    seeds: [4]
  paper:
    axes: null
    zip: [{{tokenizer.encoder: [XL, S], tokenizer.decoder: [XXL, S]}}]
    exclude: [{{tokenizer.encoder: S}}]
    stages: [extract_codes]
"""


@pytest.mark.parametrize(
    ("scale", "names", "seeds", "given"),
    [
        ("micro", {"S-S", "S-B"}, (0, 1), {"tokenizer.batch_size": 16}),
        ("smoke", {"S-S", "S-B"}, (4,), {"tokenizer.lr": 1e-3}),
        ("paper", {"XL-XXL"}, (0, 1), {"tokenizer.batch_size": 16}),
    ],
)
def test_what_is_given_at_a_scale_replaces_the_part_of_that_name(
    tmp_path: Path, scale: str, names: set[str], seeds: tuple[int, ...], given: dict[str, Any]
) -> None:
    sweep = load(tmp_path, AT, scale=scale)
    assert {trial.config.tokenizer.name for trial in expand(sweep).trials} == names
    assert (sweep.seeds, sweep.set) == (seeds, given)
    assert sweep.stages == (("extract_codes",) if scale == "paper" else tuple(STAGES))
    assert len(expand(sweep).excluded) == (2 if scale == "paper" else 0)


def test_a_scale_may_have_a_figure_of_its_own(tmp_path: Path) -> None:
    body = f"""{PAIR}
figure: {{x: rfid, y: psnr, where: {{tokenizer.encoder: [S, B], data.image_size: 16}}}}
at: {{smoke: {{figure: null}}, mini: {{figure: {{x: step}}}}}}
"""
    figures = {
        name: load(tmp_path, body, scale=name).figure for name in ("micro", "mini", "smoke")
    }
    where = ("tokenizer.encoder=S,B", "data.image_size=16")
    assert figures["micro"] == FigureChoice("rfid", ("psnr",), where=where)
    assert figures["mini"] == FigureChoice("step")
    assert figures["smoke"] == FigureChoice()


def test_overrides_go_over_what_is_given_at_the_scale(tmp_path: Path) -> None:
    sweep = load(tmp_path, AT, scale="smoke", overrides=("tokenizer.lr=5e-4", "seed=7"))
    assert {trial.config.tokenizer.lr for trial in expand(sweep).trials} == {5e-4}
    assert {trial.config.seed for trial in expand(sweep).trials} == {7}


def test_override_of_an_axis_replaces_it(tmp_path: Path) -> None:
    sweep = load(tmp_path, PAIR, overrides=("tokenizer.decoder=L", "seed=3"))
    (trial,) = expand(sweep).trials
    assert sweep.axes["tokenizer.decoder"] == ("L",)
    assert sweep.overrides == {"tokenizer.decoder": "L", "seed": 3}
    assert trial.name == "S-L"
    assert trial.config.seed == 3
    assert trial.axes == {"tokenizer.encoder": "S", "tokenizer.decoder": "L", "seed": 3}


def test_override_of_a_zipped_key_merges_equal_rows(tmp_path: Path) -> None:
    body = "zip: [{tokenizer.encoder: [S, S, B], tokenizer.decoder: [S, B, L]}]"
    sweep = load(tmp_path, body, overrides=("tokenizer.decoder=S",))
    assert names(sweep) == ["S-S", "B-S"]


def test_names_show_only_what_varies(tmp_path: Path) -> None:
    body = """
axes:
  tokenizer.encoder: [S]
  tokenizer.decoder: [S, B]
  tokenizer.lr: [1e-3]
  tokenizer.entropy_weight: [0, 0.01]
seeds: [0, 1]"""
    assert names(load(tmp_path, body))[:3] == [
        "S-S entropy_weight=0 seed=0",
        "S-S entropy_weight=0 seed=1",
        "S-S entropy_weight=0.01 seed=0",
    ]


def test_keys_that_end_alike_are_named_in_full(tmp_path: Path) -> None:
    body = """
axes:
  tokenizer.lr: [1e-3, 2e-3]
  generator.lr: [1e-3]
  generator.steps: [5, 6]
  tokenizer.steps: [5, 6]
set: {tokenizer.encoder: S, tokenizer.decoder: S}"""
    assert names(load(tmp_path, body))[0] == "lr=0.001 generator.steps=5 tokenizer.steps=5"


def test_one_trial_without_axes_is_named_by_its_tokenizer(tmp_path: Path) -> None:
    body = "set: {tokenizer.encoder: S, tokenizer.decoder: {width: 96, layers: 1, heads: 2}}"
    (trial,) = expand(load(tmp_path, body)).trials
    assert trial.name == "S-96x1x2"
    assert trial.config.tokenizer.decoder.width == 96


def test_axes_keep_values_as_written(tmp_path: Path) -> None:
    body = (
        PAIR + "\nzip: [{tokenizer.steps: [1e1, 2_0], tokenizer.cnn.multipliers: [[1], [1, 2]]}]"
    )
    trials = expand(load(tmp_path, body)).trials
    assert trials[0].axes["tokenizer.steps"] == 10.0
    assert trials[0].config.tokenizer.steps == 10
    assert trials[1].config.tokenizer.cnn.multipliers == (1, 2)
    assert trials[1].name == "S-S steps=20 multipliers=1,2"


def test_excluded_cells_are_listed(tmp_path: Path) -> None:
    body = PAIR + "\nseeds: [0, 1]\nexclude: [{tokenizer.decoder: [B], seed: 1}]"
    expansion = expand(load(tmp_path, body))
    assert len(expansion.trials) == 3
    assert expansion.excluded == ({"tokenizer.encoder": "S", "tokenizer.decoder": "B", "seed": 1},)


def test_listed_stages_come_in_graph_order(tmp_path: Path) -> None:
    sweep = load(tmp_path, PAIR + "\nstages: [extract_codes, train_tokenizer]")
    assert sweep.stages == ("train_tokenizer", "extract_codes")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("3e8", 3e8), ("1_000_000", 1_000_000), ("-2", -2), (".5", 0.5),
        ("0x1F", 31), ("0o17", 15), ("017", 17), ("true", True), ("Null", None), ("~", None),
        ("on", "on"), ("off", "off"), ("yes", "yes"), ("no", "no"), ("1d", "1d"), ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"), ("1__0", "1__0"), ("e5", "e5"), ("-.inf", float("-inf")),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    got = scalar(text)
    assert got == value
    assert type(got) is type(value)


def test_quoted_scalars_are_text_and_anchors_work() -> None:
    assert plain("a: &x [1, '1']\nb: *x\nc: !!str 5") == {"a": [1, "1"], "b": [1, "1"], "c": "5"}


def test_values_know_line_and_column() -> None:
    node = parse("a: 1\nb:\n  c: [x, y]\n", Place("f.yaml", 1), [])
    assert node is not None
    assert isinstance(node.value, dict)
    inner = node.value["b"].value
    assert isinstance(inner, dict)
    assert inner["c"].key_place == Place("f.yaml", 3, 3)
    assert isinstance(inner["c"].value, tuple)
    assert inner["c"].value[1].place == Place("f.yaml", 3, 10)


def test_schemas_on_disk_are_current() -> None:
    for name, text in schema_files().items():
        assert (SWEEPS_DIR / name).read_text() == text, "run python -m orchestration.sweep.schema"


@cache  # checking a schema against its own takes a second
def validator(file: Path) -> jsonschema.Draft202012Validator:
    schema = json.loads(file.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", [*SHIPPED, *SCALES], ids=lambda path: path.stem)
def test_shipped_files_agree_with_their_schema(path: Path) -> None:
    first, _, _ = (text := path.read_text()).partition("\n")
    named = first.removeprefix("# yaml-language-server: $schema=")
    validator((path.parent / named).resolve()).validate(plain(text))


@pytest.mark.parametrize(
    ("schema", "bad"),
    [
        (sweep_schema, {"question": "q", "axes": {"tokenizer.decodr": ["S"]}}),
        (sweep_schema, {"question": "q", "axes": {"tokenizer.log_every": [1]}}),
        (sweep_schema, {"question": "q", "set": {"tokenizer.steps": 0}}),
        (scale_schema, {"trial": {"tokenizer": {"cnn": {"chanels": 3}}}}),
        (scale_schema, {"trial": {}, "sizes": {"S": {"width": 3}}}),
    ],
)
def test_schemas_refuse(schema: Callable[[], dict[str, Any]], bad: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema()).validate(bad)


def test_examples_of_the_readme_load(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", (SWEEPS_DIR / "README.md").read_text(), re.DOTALL)
    counts = []
    for index, text in enumerate(examples):
        file = tmp_path / f"example{index}.yaml"
        file.write_text(text)
        counts.append(len(expand(load_sweep(file)).trials))
    assert counts == [22, 2, 2, 1]


@pytest.mark.heavy
def test_ten_thousand_trials_import_nothing_heavy(tmp_path: Path) -> None:
    rates = [round(1e-4 * i, 6) for i in range(1, 51)]
    body = f"""question: q
scale: micro
axes: {{tokenizer.encoder: [S, B], tokenizer.decoder: [S, B], tokenizer.lr: {rates},
        generator.lr: {rates[:10]}}}
seeds: [0, 1, 2, 3, 4]
"""
    file = tmp_path / "big.yaml"
    file.write_text(body)
    code = f"""
import sys
from orchestration.sweep.definition import expand, load_sweep
trials = expand(load_sweep({str(file)!r})).trials
assert len({{t.name for t in trials}}) == 10_000
heavy = {{'torch', 'ray', 'mlflow', 'numpy', 'pandas', 'matplotlib'}} & set(sys.modules)
assert not heavy, heavy
"""
    root = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


AXES: dict[str, list[Any]] = {
    "tokenizer.encoder": ["S", "B", "L"],
    "tokenizer.decoder": ["S", "B", "L"],
    "tokenizer.semantic_weight": [0, 0.5, 1.0],
    "generator.size": ["B", "L"],
    "sampling.temperature": [0.5, 1.0],
}


@st.composite
def axes_of_a_sweep(draw: st.DrawFn) -> dict[str, list[Any]]:
    pair = ("tokenizer.encoder", "tokenizer.decoder")
    others = draw(st.lists(st.sampled_from(sorted(set(AXES) - set(pair))), unique=True))
    keys = draw(st.permutations([*pair, *others]))
    return {
        key: draw(st.lists(st.sampled_from(AXES[key]), min_size=1, unique=True)) for key in keys
    }


def write_sweep(folder: Path, **parts: Any) -> Path:
    file = folder / "sweep.yaml"
    text = yaml.safe_dump({"question": "q", "scale": "micro", **parts}, sort_keys=False)
    file.write_text(text)
    return file


@pytest.mark.heavy
@settings(max_examples=30, deadline=None)
@given(axes=axes_of_a_sweep(), seeds=st.lists(st.integers(0, 9), min_size=1, unique=True))
def test_count_is_the_product_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, axes: dict[str, list[Any]], seeds: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("sweep")
    trials = expand(load_sweep(write_sweep(folder, axes=axes, seeds=seeds))).trials
    expected = len(seeds)
    for values in axes.values():
        expected *= len(values)
    assert len(trials) == len({trial.name for trial in trials}) == expected
    turned = dict(reversed(axes.items()))
    again = expand(load_sweep(write_sweep(folder, axes=turned, seeds=seeds[::-1]))).trials
    dump = [sorted(t.config.model_dump_json() for t in some) for some in (trials, again)]
    assert dump[0] == dump[1]


@pytest.mark.heavy
@settings(max_examples=30, deadline=None)
@given(axes=axes_of_a_sweep(), data=st.data())
def test_every_cell_is_a_trial_or_excluded(
    tmp_path_factory: pytest.TempPathFactory, axes: dict[str, list[Any]], data: st.DataObject
) -> None:
    key = data.draw(st.sampled_from(sorted(axes)))
    gone = data.draw(st.lists(st.sampled_from(axes[key]), min_size=1, unique=True))
    file = write_sweep(tmp_path_factory.mktemp("sweep"), axes=axes, exclude=[{key: gone}])
    if len(gone) == len(axes[key]):
        with pytest.raises(SweepError, match="combinations are excluded; leave at least one"):
            load_sweep(file)
        return
    expansion = expand(load_sweep(file))
    whole = 1
    for values in axes.values():
        whole *= len(values)
    assert len(expansion.trials) + len(expansion.excluded) == whole
    assert {cell[key] for cell in expansion.excluded} == set(gone)
    assert not {trial.axes[key] for trial in expansion.trials} & set(gone)


def test_long_reports_are_cut_but_kept_whole() -> None:
    error = SweepError("x", [Problem(Place("f", i), "k", "t") for i in range(60)])
    assert len(error.problems) == 60
    assert str(error).endswith("... and 10 more")
