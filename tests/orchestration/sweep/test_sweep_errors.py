"""What a user sees when a sweep or scale is wrong: file, line, key, what is allowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestration.sweep.definition import SWEEPS_DIR, SweepError, load_sweep

HEAD = "question: q\nscale: micro\n"
PAIR = "axes: {tokenizer.encoder: [S], tokenizer.decoder: [S, B]}\n"
FIXED = "set: {tokenizer.encoder: S, tokenizer.decoder: B}\n"

# Each: text of sweep.yaml, line, key, and parts of the message.
MALFORMED: dict[str, tuple[str, int, str, tuple[str, ...]]] = {
    "unknown top key": (
        HEAD + PAIR + "axis: {}\n", 4, "axis",
        ("unknown key", "axes, zip, exclude", "did you mean 'axes'?"),
    ),
    "section at the top": (
        HEAD + PAIR + "tokenizer: {lr: 1}\n", 4, "tokenizer", ("below `set:`", "dotted"),
    ),
    "unknown axis of the figure": (
        HEAD + PAIR + "figure: {x: rfdi}\n", 4, "figure.x", ("'rfdi'", "did you mean 'rfid'?"),
    ),
    "series of the figure over what does not vary": (
        HEAD + PAIR + "figure: {x: rfid, by: tokenizer.lr}\n", 4, "figure.by",
        ("'tokenizer.lr'", "there are tokenizer.encoder, tokenizer.decoder"),
    ),
    "condition of the figure on an unknown key": (
        HEAD + PAIR + "figure: {where: {tokenizer.encodr: S}}\n", 4,
        "figure.where.tokenizer.encodr",
        ("no key of a trial", "did you mean 'tokenizer.encoder'?"),
    ),
    "no question": ("scale: micro\n" + PAIR, 1, "question", ("missing", "one line")),
    "question is a number": (
        "question: 5\nscale: micro\n" + PAIR, 1, "question", ("got 5", "text"),
    ),
    "unknown scale": (
        "question: q\nscale: micor\n" + PAIR, 2, "scale",
        ("got 'micor'", "micro, mini, paper, smoke", "did you mean 'micro'?"),
    ),
    "no scale": ("question: q\n" + PAIR, 1, "scale", ("missing; scales in", "micro, mini")),
    "at an unknown scale": (
        HEAD + PAIR + "at:\n  papre: {seeds: [1]}\n", 5, "scale",
        ("got 'papre'", "did you mean 'paper'?"),
    ),
    "unknown part at a scale": (
        HEAD + PAIR + "at:\n  paper: {axis: {}}\n", 5, "axis",
        ("a scale below `at` has the keys axes", "did you mean 'axes'?"),
    ),
    "wrong value at another scale": (
        HEAD + PAIR + "at:\n  paper:\n    axes:\n      tokenizer.steps: [many]\n", 7,
        "axes.tokenizer.steps", ("got 'many'", "whole number"),
    ),
    "wrong value that this scale replaces": (
        HEAD + "axes: {tokenizer.lr: [fast]}\nat:\n  micro:\n    axes:\n"
        "      tokenizer.encoder: [S]\n      tokenizer.decoder: [S]\n", 3,
        "axes.tokenizer.lr", ("got 'fast'", "a number"),
    ),
    "twice at another scale": (
        HEAD + PAIR + "at:\n  paper:\n    set: {tokenizer.encoder: S}\n", 3,
        "axes.tokenizer.encoder", ("given twice; line 6 has it already",),
    ),
    "at is a list": (HEAD + PAIR + "at: [paper]\n", 4, "at", ("must be a mapping",)),
    "misspelt axis": (
        HEAD + "axes:\n  tokenizer.decodr: [S]\n", 4, "axes.tokenizer.decodr",
        ("unknown key", "did you mean 'tokenizer.decoder'?"),
    ),
    "unknown size": (
        HEAD + "axes:\n  tokenizer.encoder: [S]\n  tokenizer.decoder:\n    - S\n    - XL\n", 7,
        "axes.tokenizer.decoder", ("got 'XL'", "sizes of scale micro: S, B, L"),
    ),
    "unknown generator size": (
        HEAD + FIXED + "axes: {generator.size: [XXL]}\n", 4, "axes.generator.size",
        ("generator sizes of scale micro: B, L",),
    ),
    "size without heads": (
        HEAD + PAIR + "set: {generator.size: {width: 8, layers: 1, head: 2}}\n", 4,
        "set.generator.size.head", ("unknown key", "did you mean 'heads'?"),
    ),
    "fractional steps": (
        HEAD + FIXED + "axes:\n  tokenizer.steps:\n    - 5\n    - 1.5\n", 7,
        "axes.tokenizer.steps", ("got 1.5", "a whole number"),
    ),
    "scalar for a list": (
        HEAD + FIXED + "axes: {tokenizer.lr: 1e-3}\n", 4, "axes.tokenizer.lr",
        ("got 0.001", "must be a list of values, such as [0.001]"),
    ),
    "empty axis": (
        HEAD + FIXED + "axes: {tokenizer.lr: []}\n", 4, "axes.tokenizer.lr", ("empty",),
    ),
    "axes is a list": (HEAD + "axes: [1]\n", 3, "axes", ("got [1]", "must be a mapping")),
    "zip is a mapping": (HEAD + PAIR + "zip: {a: [1]}\n", 4, "zip", ("must be a list",)),
    "duplicate axis value": (
        HEAD + FIXED + "axes: {tokenizer.lr: [1e-3, 0.001]}\n", 4, "axes.tokenizer.lr",
        ("got 0.001 twice",),
    ),
    "unequal zip": (
        HEAD + "zip:\n  - tokenizer.encoder: [S, B]\n    tokenizer.decoder: [S]\n", 4, "zip[0]",
        ("tokenizer.encoder has 2, tokenizer.decoder has 1", "equally many"),
    ),
    "repeated zip row": (
        HEAD + "zip:\n  - tokenizer.encoder: [S, S]\n    tokenizer.decoder: [B, B]\n", 4, "zip[0]",
        ("given twice",),
    ),
    "axis also in zip": (
        HEAD + PAIR + "zip:\n  - tokenizer.decoder: [S, B]\n", 5, "zip[0].tokenizer.decoder",
        ("given twice; line 3",),
    ),
    "axis also in set": (
        HEAD + FIXED + "axes: {tokenizer.encoder: [S]}\n", 4, "axes.tokenizer.encoder",
        ("given twice; line 3",),
    ),
    "runtime key as axis": (
        HEAD + FIXED + "axes: {tokenizer.micro_batch: [1, 2]}\n", 4, "axes.tokenizer.micro_batch",
        ("not what it computes", "use `set`"),
    ),
    "seed as axis": (HEAD + FIXED + "axes: {seed: [1]}\n", 4, "axes.seed", ("`seeds: [0, 1]`",)),
    "duplicate seed": (HEAD + PAIR + "seeds: [1, 1]\n", 4, "seeds", ("got 1 twice",)),
    "negative seed": (HEAD + PAIR + "seeds: [-1]\n", 4, "seeds", ("got -1", "of at least 0")),
    "no seeds": (HEAD + PAIR + "seeds: []\n", 4, "seeds", ("empty",)),
    "one seed without brackets": (HEAD + PAIR + "seeds: 3\n", 4, "seeds", ("must be a list",)),
    "unknown stage": (
        HEAD + PAIR + "stages: [train_tokeniser]\n", 4, "stages",
        ("got 'train_tokeniser'", "linear_probe", "did you mean 'train_tokenizer'?"),
    ),
    "stages misspelt": (HEAD + PAIR + "stages: al\n", 4, "stages", ("`all` or a list",)),
    "exclude of no axis": (
        HEAD + PAIR + "exclude: [{tokenizer.lr: 1}]\n", 4, "exclude[0].tokenizer.lr",
        ("not an axis of this sweep", "axes: tokenizer.encoder, tokenizer.decoder, seed"),
    ),
    "exclude matches nothing": (
        HEAD + PAIR + "exclude:\n  - {tokenizer.decoder: L}\n", 5, "exclude",
        ("tokenizer.decoder: 'L' matches no combination",),
    ),
    "exclude of the empty": (
        HEAD + PAIR + "exclude: [{}]\n", 4, "exclude[0]", ("drop everything",),
    ),
    "all excluded": (
        HEAD + PAIR + "exclude: [{tokenizer.encoder: S}]\n", 4, "exclude",
        ("all 2 combinations are excluded",),
    ),
    "duplicate key": (
        HEAD + PAIR + "question: again\n", 4, "question", ("duplicate key", "line 1"),
    ),
    "cross-field, axis to blame": (
        HEAD + "axes:\n  tokenizer.encoder: [S]\n  tokenizer.decoder: [S]\n"
        "  tokenizer.semantic_layer:\n    - 1\n    - 3\n", 8, "axes.tokenizer.semantic_layer",
        ("semantic_layer 3 is beyond the decoder's 2 layers",),
    ),
    "more codes than latents to draw them from": (
        HEAD + PAIR + "set:\n  data.train_images: 64\n  tokenizer.codebook_size: 4096\n", 5,
        "set.data.train_images",
        (
            "draws 4,096 codes from the 2,048 latents that data.train_images 64 have",
            "give more images or fewer codes",
        ),
    ),
    "quantizer unknown": (
        HEAD + PAIR + "set:\n  tokenizer.quantizer:\n    name: fqs\n    levels: [8]\n", 6,
        "set.tokenizer.quantizer.name", ("got 'fqs'", "one of 'vq', 'fsq', 'lfq'", "did you mean"),
    ),
    "quantizer without a name": (
        HEAD + PAIR + "set:\n  tokenizer.quantizer: fsq\n", 5,
        "set.tokenizer.quantizer",
        ("must be a mapping {name, ...}", "write {name: fsq, levels: ...}"),
    ),
    "quantizer without a name, misspelt": (
        HEAD + PAIR + "set:\n  tokenizer.quantizer: fsqq\n", 5,
        "set.tokenizer.quantizer", ("must be a mapping {name, ...}", "did you mean 'fsq'?"),
    ),
    "data set by its path": (
        HEAD + PAIR + "set:\n  data.name: /data/birds\n", 5,
        "set.data.name", ("one of 'digits',", "give data.name=folder and data.path=/data/birds"),
    ),
    "path of images without a name": (
        HEAD + PAIR + "set:\n  data.path: /data/birds\n", 5,
        "set.data.path", ("give data.name=folder as well",),
    ),
    "part of a quantizer misspelt": (
        HEAD + PAIR + "set:\n  tokenizer.quantizer:\n    name: fsq\n    levels: [8]\n"
        "    level: 3\n", 8, "set.tokenizer.quantizer.level",
        ("unknown key; fsq has the keys name, levels", "did you mean 'levels'?"),
    ),
    "part of a quantizer missing": (
        HEAD + PAIR + "set:\n  tokenizer.quantizer: {name: rvq}\n", 5,
        "set.tokenizer.quantizer.depth", ("missing; must be a whole number from 2 to 64",),
    ),
    "part of a quantizer out of range": (
        HEAD + PAIR + "set:\n  tokenizer.quantizer: {name: lfq, bits: 0}\n", 5,
        "set.tokenizer.quantizer.bits", ("got 0; must be a whole number from 1 to 30",),
    ),
    "part of a quantizer as a key": (
        HEAD + PAIR + "set: {tokenizer.quantizer.bits: 9}\n", 4,
        "set.tokenizer.quantizer.bits", ("has no parts; it is replaced whole: {name, ...}",),
    ),
    "extra loss unknown": (
        HEAD + PAIR + "set:\n  tokenizer.extra_losses:\n    - {name: l1}\n    - {name: focal}\n",
        7, "set.tokenizer.extra_losses[1].name",
        ("got 'focal'; must be one of 'l1', 'focal_frequency'",),
    ),
    "part of an extra loss misspelt": (
        HEAD + PAIR + "set:\n  tokenizer.extra_losses: [{name: l1, wieght: 1}]\n", 5,
        "set.tokenizer.extra_losses[0].wieght",
        ("unknown key; l1 has the keys name, weight, epsilon", "did you mean 'weight'?"),
    ),
    "extra loss without brackets": (
        HEAD + FIXED + "axes: {tokenizer.extra_losses: [{name: l1}]}\n", 4,
        "axes.tokenizer.extra_losses", ("must be a list of mappings {name, ...}, such as [{name",),
    ),
    "too many trials": (
        HEAD + FIXED + f"axes: {{tokenizer.steps: {list(range(1, 1200))}, "
        f"generator.steps: {list(range(1, 1200))}}}\n", 4, "axes",
        ("1,437,601 trials", "at most 1,000,000"),
    ),
    "explicit tag": (HEAD + PAIR + "paper: !!int 2\n", 4, "", ("tag", "not supported")),
    "tab": (HEAD + "axes:\n\ta: 1\n", 4, "", ("not YAML", "spaces, not tabs")),
    "unclosed bracket": (HEAD + "axes: {tokenizer.encoder: [S}\n", 3, "", ("not YAML",)),
    "list at the top": (
        "- a\n", 1, "", ("got ['a']", "a sweep is a mapping with the keys question"),
    ),
    "empty file": ("", 1, "", ("the file is empty", "question, paper, scale")),
    "two documents": (HEAD + "---\na: 1\n", 3, "", ("not YAML", "another document")),
    "no-break space after a colon": (
        HEAD + "set:\n  tokenizer.lr:\u00a0 1e-3\n", 4, "",
        ("column 16", "U+00A0 (no-break space)"),
    ),
    "no-break spaces that indent": (
        HEAD + "set:\n\u00a0 tokenizer.lr: 1e-3\n", 4, "", ("column 1 is no ordinary space",),
    ),
    "no-break space after a dash": (
        HEAD + "axes:\n  tokenizer.encoder:\n  -\u00a0S\n  - B\n", 5, "", ("column 4",),
    ),
    "zero width space": (
        HEAD + "set: {tokenizer.lr: 1e-3\u200b}\n", 3, "", ("column 25", "U+200B"),
    ),
    "half a character": ('scale: micro\nquestion: "\\ud800"\n', 2, "", ("U+D800",)),
    "a command to the terminal": ('scale: micro\nquestion: "\\e[31m"\n', 2, "", ("U+001B",)),
    "half a character in a key": (HEAD + 'set: {"\\udcff": 1}\n', 3, "", ("U+DCFF",)),
    "seed of 64 bits": (
        HEAD + "seeds: [18446744073709551615]\n", 3, "seeds", ("9223372036854775807",),
    ),
    "steps of 64 bits": (
        HEAD + "set: {tokenizer.steps: 9223372036854775808}\n", 3, "set.tokenizer.steps",
        ("got 9223372036854775808", "at most 9223372036854775807"),
    ),
    "recursive alias": (HEAD + "axes: &a [*a]\n", 3, "", ("more than 30 levels",)),
}  # fmt: skip
# Each: an entry of `set` in line 4, and parts of the message.
WRONG_SETTINGS: dict[str, tuple[str, ...]] = {
    "section left out": (
        "perceptual_weight: 1", "keys are dotted", "did you mean 'tokenizer.perceptual_weight'?",
    ),
    "group as a key": ("tokenizer.cnn: {channels: 8}", "group of keys", "tokenizer.cnn.channels"),
    "part of a size": ("tokenizer.encoder.layers: 3", "{width, layers, heads}"),
    "heads do not divide width": (
        "generator.size: {width: 8, layers: 1, heads: 3}", "width 8 is not a multiple of heads 3",
    ),
    "negative steps": ("tokenizer.steps: -5", "got -5", "a whole number of at least 1"),
    "not a number": ("tokenizer.lr: .nan", "got nan", "a number above 0"),
    "infinity by overflow": ("tokenizer.lr: 1e999", "got inf"),
    "boolean for a number": ("tokenizer.steps: true", "got true", "a whole number"),
    "number for a boolean": ("codes.flip: 1", "got 1", "true or false"),
    "yes is text": ("codes.flip: yes", "got 'yes'", "true or false"),
    "quoted number": ("tokenizer.lr: '1e-4'", "got '1e-4'", "a number above 0"),
    "out of range": ("generator.dropout: 2", "got 2", "a number from 0 to 1"),
    "choice": (
        "tokenizer.schedule: cosin", "one of 'constant', 'cosine', 'wsd'",
        "did you mean 'cosine'?",
    ),
    "choice of numbers": ("codes.crops: 10", "got 10", "one of 1, 5"),
    "list item": (
        "tokenizer.cnn.multipliers: [1, 0]", "got [1, 0]",
        "a list, each item a whole number of at least 1",
    ),
    "cross-section, set to blame": ("data.image_size: 15", "15 is not a multiple of 2"),
    "power of two": ("tokenizer.num_latent_tokens: 24", "24 is not a power of two"),
}  # fmt: skip
MALFORMED |= {
    case: (HEAD + PAIR + f"set: {{{entry}}}\n", 4, f"set.{entry.partition(':')[0]}", tuple(parts))
    for case, (entry, *parts) in WRONG_SETTINGS.items()
}


def problems_of(path: Path, **options: Any) -> list[str]:
    with pytest.raises(SweepError) as caught:
        load_sweep(path, **options)
    for word in ("pydantic", "http", "Input should", "type=", "extra_forbidden"):
        assert word not in str(caught.value)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.replace(" ", "-"))
def test_malformed(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, line, key, parts = MALFORMED[case]
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(text)
    prefix = f"bad.yaml:{line}: {key}: " if key else f"bad.yaml:{line}: "
    messages = [text for text in problems_of(Path("bad.yaml")) if text.startswith(prefix)]
    assert messages, problems_of(Path("bad.yaml"))
    assert any(all(part in message for part in parts) for message in messages), messages


def test_no_break_spaces_inside_a_sentence_are_text(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text("question: Est-ce vrai\u202f?\nscale: micro\nset: {tokenizer.encoder: Q}\n")
    assert not any("ordinary space" in problem for problem in problems_of(file))


def test_everything_is_reported_at_once_in_file_order(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "scale: micro\naxes:\n  tokenizer.lr: [-1]\n  tokenizer.stepz: [1]\n"
        "set: {tokenizer.encoder: S, tokenizer.decoder: Q}\nseeds: [-2]\nstages: [x]\n"
        "exclude: [{foo: 1}]\n"
    )
    lines = [int(text.removeprefix(f"{file}:").split(":")[0]) for text in problems_of(file)]
    assert lines == [1, 3, 4, 5, 6, 7, 8]


def test_a_wrong_scale_hides_no_other_problem(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "question: q\nscale: micor\n"
        "zip: [{tokenizer.encoder: [S, B], tokenizer.lr: [1e-3, 2e-3]}]\nset: {sampling.top: 1}\n"
    )
    with pytest.raises(SweepError) as caught:
        load_sweep(file)
    assert [problem.key for problem in caught.value.problems] == ["scale", "set.sampling.top"]


def test_scale_problems_point_into_the_scale(tmp_path: Path) -> None:
    scales = tmp_path / "scales"
    scales.mkdir()
    text = (SWEEPS_DIR / "scales" / "smoke.yaml").read_text()
    text = text.replace("usage_window: 512", "usage_window: 0").replace(
        "  codes: {flip", "  codez: {flip"
    )
    text = text.replace("num_latent_tokens: 8", "num_latent_tokens: 9")
    (scales / "own.yaml").write_text(text + "recipes: {S-Q: {lr: x}}\n")
    file = tmp_path / "sweep.yaml"
    file.write_text(f"question: q\nscale: own\n{PAIR}")
    found = problems_of(file)
    numbers = {part: i for i, line in enumerate(text.splitlines(), 1) for part in [line.strip()]}
    own = scales / "own.yaml"
    wanted = (
        f"{own}:{numbers['usage_window: 0']}: trial.tokenizer.usage_window: got 0; must be a ",
        f"{own}:{numbers['codez: {flip: false}']}: trial.codez: unknown key",
        f"{own}:{numbers['num_latent_tokens: 9']}: trial.tokenizer.num_latent_tokens: "
        "num_latent_tokens 9 is not a power of two",
        f"{own}:{len(text.splitlines()) + 1}: recipes.S-Q: unknown tokenizer",
        f"{own}:{len(text.splitlines()) + 1}: recipes.S-Q.lr: got 'x'; must be a number above 0",
    )
    for start in wanted:
        assert any(problem.startswith(start) for problem in found), (start, found)


def test_missing_values_name_the_key_and_the_scale(tmp_path: Path) -> None:
    scales = tmp_path / "scales"
    scales.mkdir()
    (scales / "own.yaml").write_text("sizes: {S: {width: 8, layers: 1, heads: 1}}\ntrial: {}\n")
    file = tmp_path / "sweep.yaml"
    file.write_text("question: q\nscale: own\nset: {tokenizer.encoder: S}\n")
    found = problems_of(file)
    start = f"{scales / 'own.yaml'}:2: trial.tokenizer."
    assert f"{start}decoder: missing; must be a size; give it here or in the sweep" in found
    assert f"{start}steps: missing; must be a whole number of at least 1" in "\n".join(found)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tokenizer.lr=abc", "--set tokenizer.lr=abc: tokenizer.lr: got 'abc'; must be a number"),
        ("tokenizer.lr", "--set tokenizer.lr: must be key=value"),
        ("tokenizer.dcoder=S", "did you mean 'tokenizer.decoder'?"),
        ("tokenizer.decoder=Z", "got 'Z'; sizes of scale micro: S, B, L"),
        ("tokenizer.cnn.multipliers=[1,", "not YAML"),
        ("tokenizer.steps=", "got null; must be a whole number of at least 1"),
        ("seed=-1", "seeds: got -1"),
        ("probe.layer=9", "probe.layer 9 is beyond the 3 layers of generator.size"),
    ],
)
def test_bad_override(override: str, message: str) -> None:
    found = problems_of(SWEEPS_DIR / "decoder_scaling.yaml", overrides=(override,))
    assert all(problem.startswith("--set ") for problem in found)
    assert message in "\n".join(found)


def test_override_given_twice() -> None:
    twice = ("tokenizer.lr=1", "tokenizer.lr=2")
    found = problems_of(SWEEPS_DIR / "decoder_scaling.yaml", overrides=twice)
    assert found == ["--set tokenizer.lr=2: tokenizer.lr: given twice; keep one"]


def test_scale_option() -> None:
    (found,) = problems_of(SWEEPS_DIR / "decoder_scaling.yaml", scale="papr")
    assert found.startswith("--scale: scale: got 'papr'; scales in ")
    assert found.endswith("did you mean 'paper'?")


@pytest.mark.parametrize("given", ["decoder_scalng", "sweeps/decoder_scalng.yaml"])
def test_no_such_sweep_suggests_the_nearest(given: str) -> None:
    (found,) = problems_of(Path(given))
    assert found.startswith(f"{given}: no such file; sweeps in ")
    assert found.endswith("did you mean 'decoder_scaling'?")


def test_directory(tmp_path: Path) -> None:
    (found,) = problems_of(tmp_path)
    assert found.startswith(f"{tmp_path}: is a directory; name one file")


def test_not_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes(b"scale: micro\nquestion: na\xefve\n")
    assert problems_of(file) == [f"{file}:2: byte 0xef is not UTF-8; save the file as UTF-8"]


@pytest.mark.heavy
def test_aliases_cannot_explode(tmp_path: Path) -> None:
    file = tmp_path / "bomb.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    file.write_text("\n".join(lines))
    (found,) = problems_of(file)
    assert "more than 200,000 values, aliases counted" in found


@pytest.mark.heavy
def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "deep.yaml"
    file.write_text("a: " + "[" * 5000)
    (found,) = problems_of(file)
    assert "nested too deeply" in found
