"""What a user sees when a `search` block is wrong: line, key, what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.sweep.definition import SweepError, load_sweep
from tests.orchestration.search.search_helpers import BLOCK, HEAD, load, write

LINES = HEAD.count("\n")
SPACE = "  space: {generator.lr: {low: 1e-4, high: 1e-1, log: true}}\n"
REST = "  objectives: [ar_val_loss]\n  budget: {trials: 6}\n"
TWO = SPACE.replace("}}", "}, generator.dropout: [0, 0.1]}")


Case = tuple[str, int, str, tuple[str, ...]]
"""A block, the line within it, the key, and parts of the message."""


def added(line: str, key: str, *parts: str) -> Case:
    """A line more than the block has."""
    return f"{BLOCK}  {line}\n", 5, f"search.{key}", parts


def in_space(text: str, key: str, *parts: str) -> Case:
    return f"search:\n  space: {{{text}}}\n{REST}", 2, f"search.space.{key}".rstrip("."), parts


def in_range(text: str, key: str, *parts: str) -> Case:
    return in_space(f"generator.lr: {{{text}}}", f"generator.lr{key}", *parts)


def of_objectives(text: str, key: str, *parts: str) -> Case:
    block = f"search:\n{SPACE}  objectives: {text}\n  budget: {{trials: 3}}\n"
    return block, 3, f"search.{key}", parts


def of_budget(text: str, key: str, *parts: str) -> Case:
    block = f"search:\n{SPACE}  objectives: [gfid]\n  budget: {text}\n"
    return block, 4, f"search.budget.{key}", parts


def of_several(line: str, key: str, *parts: str) -> Case:
    """A line that does not go together with two objectives."""
    block = f"search:\n{SPACE}  objectives: [rfid, gfid]\n  budget: {{trials: 6}}\n  {line}\n"
    return block, 5, f"search.{key}", parts


MALFORMED: dict[str, Case] = {
    "an objective that is switched off": of_objectives(
        "[lpips]", "objectives", "no stage of the trials measures lpips", "rfid"
    ),
    "an objective of a stage that is off": of_objectives(
        "[gfid_best]", "objectives", "measures gfid_best", "did you mean 'g"
    ),
    "a curve that nothing logs": added(
        "pruner: {name: median, metric: val/loss, every: 2, min_steps: 2}",
        "pruner.metric",
        "train/loss, train/grad_norm",
        "did you mean 'train/loss'?",
    ),
    "a curve of a loss that is off": added(
        "pruner: {name: median, stage: train_tokenizer, every: 2, min_steps: 2, "
        "metric: train/entropy_loss}",
        "pruner.metric",
        "logs no curve",
    ),
    "a seed beyond NumPy's": added("seed: 4294967296", "seed", "4294967295"),
    "no mapping": ("search: tpe\n", 1, "search", ("got 'tpe'", "mapping", "space, sampler")),
    "unknown key": (
        BLOCK + "  prune: none\n",
        5,
        "search.prune",
        ("a search has the keys", "did you mean 'pruner'?"),
    ),
    "no space": ("search:\n" + REST, 1, "search.space", ("missing", "low: 1e-4")),
    "empty space": in_space("", "", "is empty"),
    "unknown key of the trial": in_space(
        "generator.lrr: [1, 2]", "generator.lrr", "did you mean 'generator.lr'?"
    ),
    "fixed as well": in_space(
        "tokenizer.decoder: [S, B]", "tokenizer.decoder", "axes, zip or set as well"
    ),
    "how, not what": in_space(
        "generator.log_every: [1, 2]", "generator.log_every", "cannot vary", "`set`"
    ),
    "one number": in_space(
        "generator.lr: 1e-3", "generator.lr", "list of values", "{low, high, log, step}"
    ),
    "one value": in_space("generator.lr: [1e-3]", "generator.lr", "two values at least", "`set`"),
    "a value twice": in_space("generator.lr: [1e-3, 0.001]", "generator.lr", "given twice"),
    "wrong value": in_space(
        "generator.lr: [1e-3, fast]", "generator.lr", "got 'fast'", "a number"
    ),
    "unknown size": in_space(
        "generator.size: [S, Q]",
        "generator.size",
        "got 'Q'",
        "generator sizes of scale smoke: S, B",
    ),
    "unknown part of a range": in_range(
        "low: 1, high: 2, stop: 3", ".stop", "low, high, log, step", "did you mean 'step'?"
    ),
    "no end": in_range("low: 1", ".high", "missing", "a number"),
    "end not allowed": in_range("low: -1, high: 2", ".low", "got -1", "above 0"),
    "ends exchanged": in_range("low: 2, high: 1", "", "low 2 is not below high 1"),
    "log and step": in_range(
        "low: 1, high: 9, log: true, step: 1", "", "log and step do not go together"
    ),
    "log is no flag": in_range("low: 1, high: 9, log: 2", ".log", "got 2", "true or false"),
    "log of zero": in_space(
        "generator.dropout: {low: 0, high: 0.5, log: true}",
        "generator.dropout",
        "low 0 has no logarithm",
    ),
    "negative step": in_range("low: 1, high: 9, step: -1", ".step", "got -1", "above 0"),
    "step too large": in_range("low: 1, high: 2, step: 5", "", "step 5 is larger than the range"),
    "step of whole numbers": in_space(
        "tokenizer.codebook_size: {low: 8, high: 64, step: 1.5}",
        "tokenizer.codebook_size",
        "must be a whole number",
    ),
    "range of words": in_space(
        "tokenizer.augment: {low: 1, high: 2}", "tokenizer.augment", "give a list of values"
    ),
    "unknown sampler": added("sampler: tpee", "sampler", "'tpe', 'cmaes', 'grid'", "mean 'tpe'?"),
    "cmaes with one key": added("sampler: cmaes", "sampler", "two keys at least"),
    "cmaes with a list": (
        "search:\n" + TWO + REST + "  sampler: cmaes\n",
        5,
        "search.sampler",
        ("not the values of generator.dropout",),
    ),
    "cmaes for several": of_several("sampler: cmaes", "sampler", "one objective"),
    "nsga2 for one": added("sampler: nsga2", "sampler", "several objectives"),
    "grid without steps": added("sampler: grid", "sampler", "needs a step", "generator.lr"),
    "unknown pruner": added("pruner: {name: ahsa}", "pruner.name", "did you mean 'asha'?"),
    "pruner alone": added("pruner: asha", "pruner", "say what it looks at", "every: 50"),
    "pruner of a stage without a curve": added(
        "pruner: {name: asha, stage: extract_codes}",
        "pruner.stage",
        "'train_tokenizer', 'train_generator'",
    ),
    "pruner's key": added("pruner: {name: asha, evry: 2}", "pruner.evry", "did you mean 'every'?"),
    "pruner between logged steps": added(
        "pruner: {name: asha, every: 3}", "pruner.every", "multiple of 2", "log_every"
    ),
    "pruner that never looks": added(
        "pruner: {name: asha, every: 2, min_steps: 12}",
        "pruner.min_steps",
        "12 steps",
        "before that",
    ),
    "pruner for several": of_several(
        "pruner: {name: median, every: 2}", "pruner", "one objective only"
    ),
    "factor of one": added(
        "pruner: {name: asha, every: 2, factor: 1}", "pruner.factor", "at least 2"
    ),
    "no objectives": (
        "search:\n" + SPACE + "  budget: {trials: 6}\n",
        1,
        "search.objectives",
        ("missing", "[ar_val_loss]"),
    ),
    "empty objectives": of_objectives("[]", "objectives", "is empty"),
    "unknown objective": of_objectives(
        "[gfidd]", "objectives", "got 'gfidd'", "gpu_hours", "did you mean 'gfid'?"
    ),
    "objective twice": of_objectives("[gfid, gfid]", "objectives", "given twice"),
    "objective without direction": of_objectives(
        "[effective_rank]", "objectives", "neither lower nor higher", "{effective_rank: minimize}"
    ),
    "wrong direction": of_objectives("{gfid: down}", "objectives.gfid", "'minimize', 'maximize'"),
    "no budget": (
        "search:\n" + SPACE + "  objectives: [gfid]\n",
        1,
        "search.budget.trials",
        ("missing", "20"),
    ),
    "budget's key": of_budget("{trials: 2, hour: 3}", "hour", "did you mean 'hours'?"),
    "half a trial": of_budget("{trials: 1.5}", "trials", "got 1.5", "whole number of at least 1"),
    "no hours": of_budget("{trials: 1, hours: 0}", "hours", "got 0", "above 0"),
    "seed": added("seed: x", "seed", "a whole number from 0"),
    "none at once": added("at_once: 0", "at_once", "at least 1"),
    "storage": added("storage: 5", "storage", "text"),
    "transfer of what is searched": added(
        "transfer: {generator.lr: 1}", "transfer.generator.lr", "is searched itself"
    ),
    "transfer of two": (
        "search:\n" + TWO + REST + "  transfer: {tokenizer.decoder: B}\n",
        5,
        "search.transfer",
        ("one key", "log: true"),
    ),
    "axes beside it": (
        BLOCK + "axes: {tokenizer.semantic_weight: [0, 1]}\n",
        1,
        "search",
        ("make 2 combinations", "`space` or `set`"),
    ),
    "at another scale": (
        BLOCK + "at:\n  paper:\n    search: {space: {generator.lr: 1}}\n",
        7,
        "search.space.generator.lr",
        ("list of values",),
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_wrong_block_is_reported_with_line_and_key(tmp_path: Path, name: str) -> None:
    block, line, key, parts = MALFORMED[name]
    with pytest.raises(SweepError) as raised:
        load(tmp_path, block)
    found = [p for p in raised.value.problems if p.key == key and p.place.line == LINES + line]
    assert found, str(raised.value)
    assert all(part in found[0].text for part in parts), found[0].text


def test_a_space_that_set_fixes_whole_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="--set fixes every key of it"):
        load_sweep(write(tmp_path), overrides=["generator.lr=1e-3"])


def test_set_takes_a_key_out_of_the_space(tmp_path: Path) -> None:
    file = write(tmp_path, "search:\n" + TWO + REST)
    search = load_sweep(file, overrides=["generator.lr=1e-3"]).search
    assert search is not None
    assert list(search.space) == ["generator.dropout"]
    assert search.trial("000", {"generator.dropout": 0.1}).config.generator.lr == 1e-3


def test_a_suggestion_that_makes_no_trial_says_why(tmp_path: Path) -> None:
    block = "search:\n  space: {tokenizer.semantic_layer: {low: 1, high: 3}}\n" + REST
    search = load(tmp_path, block)
    assert search.trial("000", {"tokenizer.semantic_layer": 1}).name == "000 semantic_layer=1"
    with pytest.raises(ValueError, match="semantic_layer 2 is beyond the decoder's 1 layers"):
        search.trial("001", {"tokenizer.semantic_layer": 2})


def test_a_larger_budget_is_the_same_search_and_all_else_another(tmp_path: Path) -> None:
    first = load(tmp_path)
    assert load(tmp_path, BLOCK.replace("trials: 6", "trials: 7")).identity == first.identity
    assert load(tmp_path, BLOCK + "  at_once: 2\n").identity == first.identity
    for other in ("  seed: 1\n", "  sampler: random\n", "  transfer: {tokenizer.decoder: B}\n"):
        assert load(tmp_path, BLOCK + other).identity != first.identity
