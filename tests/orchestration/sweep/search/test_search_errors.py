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


def of_range(text: str) -> str:
    return f"search:\n  space: {{generator.lr: {{{text}}}}}\n{REST}"


# Each: the block, line within it, key, and parts of the message.
MALFORMED: dict[str, tuple[str, int, str, tuple[str, ...]]] = {
    "an objective that is switched off": (
        "search:\n" + SPACE + "  objectives: [lpips]\n  budget: {trials: 3}\n", 3,
        "search.objectives", ("no stage of the trials measures lpips", "rfid"),
    ),
    "an objective of a stage that is off": (
        "search:\n" + SPACE + "  objectives: [gfid_best]\n  budget: {trials: 3}\n", 3,
        "search.objectives", ("measures gfid_best", "did you mean 'g"),
    ),
    "a curve that nothing logs": (
        BLOCK + "  pruner: {name: median, metric: val/loss, every: 2, min_steps: 2}\n", 5,
        "search.pruner.metric", ("train/loss, train/grad_norm", "did you mean 'train/loss'?"),
    ),
    "a curve of a loss that is off": (
        BLOCK + "  pruner: {name: median, stage: train_tokenizer, every: 2, min_steps: 2, "
        "metric: train/entropy_loss}\n", 5, "search.pruner.metric", ("logs no curve",),
    ),
    "a seed beyond NumPy's": (BLOCK + "  seed: 4294967296\n", 5, "search.seed", ("4294967295",)),
    "no mapping": ("search: tpe\n", 1, "search", ("got 'tpe'", "mapping", "space, sampler")),
    "unknown key": (
        BLOCK + "  prune: none\n", 5, "search.prune",
        ("a search has the keys", "did you mean 'pruner'?"),
    ),
    "no space": ("search:\n" + REST, 1, "search.space", ("missing", "low: 1e-4")),
    "empty space": ("search:\n  space: {}\n" + REST, 2, "search.space", ("is empty",)),
    "unknown key of the trial": (
        "search:\n  space: {generator.lrr: [1, 2]}\n" + REST, 2, "search.space.generator.lrr",
        ("did you mean 'generator.lr'?",),
    ),
    "fixed as well": (
        "search:\n  space: {tokenizer.decoder: [S, B]}\n" + REST, 2,
        "search.space.tokenizer.decoder", ("axes, zip or set as well",),
    ),
    "how, not what": (
        "search:\n  space: {generator.log_every: [1, 2]}\n" + REST, 2,
        "search.space.generator.log_every", ("cannot vary", "`set`"),
    ),
    "one number": (
        "search:\n  space: {generator.lr: 1e-3}\n" + REST, 2, "search.space.generator.lr",
        ("list of values", "{low, high, log, step}"),
    ),
    "one value": (
        "search:\n  space: {generator.lr: [1e-3]}\n" + REST, 2, "search.space.generator.lr",
        ("two values at least", "`set`"),
    ),
    "a value twice": (
        "search:\n  space: {generator.lr: [1e-3, 0.001]}\n" + REST, 2,
        "search.space.generator.lr", ("given twice",),
    ),
    "wrong value": (
        "search:\n  space: {generator.lr: [1e-3, fast]}\n" + REST, 2,
        "search.space.generator.lr", ("got 'fast'", "a number"),
    ),
    "unknown size": (
        "search:\n  space: {generator.size: [S, Q]}\n" + REST, 2, "search.space.generator.size",
        ("got 'Q'", "generator sizes of scale smoke: S, B"),
    ),
    "unknown part of a range": (
        of_range("low: 1, high: 2, stop: 3"), 2, "search.space.generator.lr.stop",
        ("low, high, log, step", "did you mean 'step'?"),
    ),
    "no end": (of_range("low: 1"), 2, "search.space.generator.lr.high", ("missing", "a number")),
    "end not allowed": (
        of_range("low: -1, high: 2"), 2, "search.space.generator.lr.low", ("got -1", "above 0"),
    ),
    "ends exchanged": (
        of_range("low: 2, high: 1"), 2, "search.space.generator.lr",
        ("low 2 is not below high 1",),
    ),
    "log and step": (
        of_range("low: 1, high: 9, log: true, step: 1"), 2, "search.space.generator.lr",
        ("log and step do not go together",),
    ),
    "log is no flag": (
        of_range("low: 1, high: 9, log: 2"), 2, "search.space.generator.lr.log",
        ("got 2", "true or false"),
    ),
    "log of zero": (
        "search:\n  space: {generator.dropout: {low: 0, high: 0.5, log: true}}\n" + REST, 2,
        "search.space.generator.dropout", ("low 0 has no logarithm",),
    ),
    "negative step": (
        of_range("low: 1, high: 9, step: -1"), 2, "search.space.generator.lr.step",
        ("got -1", "above 0"),
    ),
    "step too large": (
        of_range("low: 1, high: 2, step: 5"), 2, "search.space.generator.lr",
        ("step 5 is larger than the range",),
    ),
    "step of whole numbers": (
        "search:\n  space: {tokenizer.codebook_size: {low: 8, high: 64, step: 1.5}}\n" + REST, 2,
        "search.space.tokenizer.codebook_size", ("must be a whole number",),
    ),
    "range of words": (
        "search:\n  space: {tokenizer.augment: {low: 1, high: 2}}\n" + REST, 2,
        "search.space.tokenizer.augment", ("give a list of values",),
    ),
    "unknown sampler": (
        BLOCK + "  sampler: tpee\n", 5, "search.sampler",
        ("'tpe', 'cmaes', 'grid'", "mean 'tpe'?"),
    ),
    "cmaes with one key": (
        BLOCK + "  sampler: cmaes\n", 5, "search.sampler", ("two keys at least",),
    ),
    "cmaes with a list": (
        "search:\n" + TWO + REST + "  sampler: cmaes\n", 5, "search.sampler",
        ("not the values of generator.dropout",),
    ),
    "cmaes for several": (
        "search:\n" + SPACE + "  objectives: [rfid, gfid]\n  budget: {trials: 6}\n"
        "  sampler: cmaes\n", 5, "search.sampler", ("one objective",),
    ),
    "nsga2 for one": (BLOCK + "  sampler: nsga2\n", 5, "search.sampler", ("several objectives",)),
    "grid without steps": (
        BLOCK + "  sampler: grid\n", 5, "search.sampler", ("needs a step", "generator.lr"),
    ),
    "unknown pruner": (
        BLOCK + "  pruner: {name: ahsa}\n", 5, "search.pruner.name", ("did you mean 'asha'?",),
    ),
    "pruner alone": (
        BLOCK + "  pruner: asha\n", 5, "search.pruner", ("say what it looks at", "every: 50"),
    ),
    "pruner of a stage without a curve": (
        BLOCK + "  pruner: {name: asha, stage: extract_codes}\n", 5, "search.pruner.stage",
        ("'train_tokenizer', 'train_generator'",),
    ),
    "pruner's key": (
        BLOCK + "  pruner: {name: asha, evry: 2}\n", 5, "search.pruner.evry",
        ("did you mean 'every'?",),
    ),
    "pruner between logged steps": (
        BLOCK + "  pruner: {name: asha, every: 3}\n", 5, "search.pruner.every",
        ("multiple of 2", "log_every"),
    ),
    "pruner that never looks": (
        BLOCK + "  pruner: {name: asha, every: 2, min_steps: 12}\n", 5, "search.pruner.min_steps",
        ("12 steps", "before that"),
    ),
    "pruner for several": (
        "search:\n" + SPACE + "  objectives: [rfid, gfid]\n  budget: {trials: 6}\n"
        "  pruner: {name: median, every: 2}\n", 5, "search.pruner", ("one objective only",),
    ),
    "factor of one": (
        BLOCK + "  pruner: {name: asha, every: 2, factor: 1}\n", 5, "search.pruner.factor",
        ("at least 2",),
    ),
    "no objectives": (
        "search:\n" + SPACE + "  budget: {trials: 6}\n", 1, "search.objectives",
        ("missing", "[ar_val_loss]"),
    ),
    "empty objectives": (
        "search:\n" + SPACE + "  objectives: []\n  budget: {trials: 6}\n", 3,
        "search.objectives", ("is empty",),
    ),
    "unknown objective": (
        "search:\n" + SPACE + "  objectives: [gfidd]\n  budget: {trials: 6}\n", 3,
        "search.objectives", ("got 'gfidd'", "gpu_hours", "did you mean 'gfid'?"),
    ),
    "objective twice": (
        "search:\n" + SPACE + "  objectives: [gfid, gfid]\n  budget: {trials: 6}\n", 3,
        "search.objectives", ("given twice",),
    ),
    "objective without direction": (
        "search:\n" + SPACE + "  objectives: [effective_rank]\n  budget: {trials: 6}\n", 3,
        "search.objectives", ("neither lower nor higher", "{effective_rank: minimize}"),
    ),
    "wrong direction": (
        "search:\n" + SPACE + "  objectives: {gfid: down}\n  budget: {trials: 6}\n", 3,
        "search.objectives.gfid", ("'minimize', 'maximize'",),
    ),
    "no budget": (
        "search:\n" + SPACE + "  objectives: [gfid]\n", 1, "search.budget.trials",
        ("missing", "20"),
    ),
    "budget's key": (
        "search:\n" + SPACE + "  objectives: [gfid]\n  budget: {trials: 2, hour: 3}\n", 4,
        "search.budget.hour", ("did you mean 'hours'?",),
    ),
    "half a trial": (
        "search:\n" + SPACE + "  objectives: [gfid]\n  budget: {trials: 1.5}\n", 4,
        "search.budget.trials", ("got 1.5", "whole number of at least 1"),
    ),
    "no hours": (
        "search:\n" + SPACE + "  objectives: [gfid]\n  budget: {trials: 1, hours: 0}\n", 4,
        "search.budget.hours", ("got 0", "above 0"),
    ),
    "seed": (BLOCK + "  seed: x\n", 5, "search.seed", ("a whole number from 0",)),
    "none at once": (BLOCK + "  at_once: 0\n", 5, "search.at_once", ("at least 1",)),
    "storage": (BLOCK + "  storage: 5\n", 5, "search.storage", ("text",)),
    "transfer of what is searched": (
        BLOCK + "  transfer: {generator.lr: 1}\n", 5, "search.transfer.generator.lr",
        ("is searched itself",),
    ),
    "transfer of two": (
        "search:\n" + TWO + REST + "  transfer: {tokenizer.decoder: B}\n", 5, "search.transfer",
        ("one key", "log: true"),
    ),
    "axes beside it": (
        BLOCK + "axes: {tokenizer.semantic_weight: [0, 1]}\n", 1, "search",
        ("make 2 combinations", "`space` or `set`"),
    ),
    "at another scale": (
        BLOCK + "at:\n  paper:\n    search: {space: {generator.lr: 1}}\n", 7,
        "search.space.generator.lr", ("list of values",),
    ),
}  # fmt: skip


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
