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
    "no mapping": ("search: tpe\n", 1, "search", ("got 'tpe'", "mapping", "space, sampler")),
    "unknown key": (
        BLOCK + "  prune: none\n", 5, "search.prune",
        ("a search has the keys", "did you mean 'pruner'?"),
    ),
    "no space": ("search:\n" + REST, 1, "search.space", ("missing", "low: 1e-4")),
    "empty space": ("search:\n  space: {}\n" + REST, 2, "search.space", ("is empty",)),
    "cmaes with a list": (
        "search:\n" + TWO + REST + "  sampler: cmaes\n", 5, "search.sampler",
        ("not the values of generator.dropout",),
    ),
    "cmaes for several": (
        "search:\n" + SPACE + "  objectives: [rfid, gfid]\n  budget: {trials: 6}\n"
        "  sampler: cmaes\n", 5, "search.sampler", ("one objective",),
    ),
    "pruner for several": (
        "search:\n" + SPACE + "  objectives: [rfid, gfid]\n  budget: {trials: 6}\n"
        "  pruner: {name: median, every: 2}\n", 5, "search.pruner", ("one objective only",),
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
# Each: an entry of the space, the end of the reported key, and parts of the message.
WRONG_SPACES: dict[str, tuple[str, ...]] = {
    "unknown key of the trial": ("generator.lrr: [1, 2]", "", "did you mean 'generator.lr'?"),
    "fixed as well": ("tokenizer.decoder: [S, B]", "", "axes, zip or set as well"),
    "how, not what": ("generator.log_every: [1, 2]", "", "cannot vary", "`set`"),
    "one number": ("generator.lr: 1e-3", "", "list of values", "{low, high, log, step}"),
    "one value": ("generator.lr: [1e-3]", "", "two values at least", "`set`"),
    "a value twice": ("generator.lr: [1e-3, 0.001]", "", "given twice"),
    "wrong value": ("generator.lr: [1e-3, fast]", "", "got 'fast'", "a number"),
    "unknown size": (
        "generator.size: [S, Q]",
        "", "got 'Q'", "generator sizes of scale smoke: S, B",
    ),
    "unknown part of a range": (
        "generator.lr: {low: 1, high: 2, stop: 3}",
        ".stop", "low, high, log, step", "did you mean 'step'?",
    ),
    "no end": ("generator.lr: {low: 1}", ".high", "missing", "a number"),
    "end not allowed": ("generator.lr: {low: -1, high: 2}", ".low", "got -1", "above 0"),
    "ends exchanged": ("generator.lr: {low: 2, high: 1}", "", "low 2 is not below high 1"),
    "log and step": (
        "generator.lr: {low: 1, high: 9, log: true, step: 1}",
        "", "log and step do not go together",
    ),
    "log is no flag": (
        "generator.lr: {low: 1, high: 9, log: 2}",
        ".log", "got 2", "true or false",
    ),
    "log of zero": (
        "generator.dropout: {low: 0, high: 0.5, log: true}",
        "", "low 0 has no logarithm",
    ),
    "negative step": ("generator.lr: {low: 1, high: 9, step: -1}", ".step", "got -1", "above 0"),
    "step too large": (
        "generator.lr: {low: 1, high: 2, step: 5}",
        "", "step 5 is larger than the range",
    ),
    "step of whole numbers": (
        "tokenizer.codebook_size: {low: 8, high: 64, step: 1.5}",
        "", "must be a whole number",
    ),
    "range of words": ("tokenizer.augment: {low: 1, high: 2}", "", "give a list of values"),
}  # fmt: skip
# Each: a line behind a sound block, its key behind `search.`, and parts of the message.
WRONG_LINES: dict[str, tuple[str, ...]] = {
    "a curve that nothing logs": (
        "pruner: {name: median, metric: val/loss, every: 2, min_steps: 2}",
        "pruner.metric", "train/loss, train/grad_norm", "did you mean 'train/loss'?",
    ),
    "a curve of a loss that is off": (
        "pruner: {name: median, stage: train_tokenizer, every: 2, min_steps: 2, "
        "metric: train/entropy_loss}",
        "pruner.metric", "logs no curve",
    ),
    "a seed beyond NumPy's": ("seed: 4294967296", "seed", "4294967295"),
    "unknown sampler": ("sampler: tpee", "sampler", "'tpe', 'cmaes', 'grid'", "mean 'tpe'?"),
    "cmaes with one key": ("sampler: cmaes", "sampler", "two keys at least"),
    "nsga2 for one": ("sampler: nsga2", "sampler", "several objectives"),
    "grid without steps": ("sampler: grid", "sampler", "needs a step", "generator.lr"),
    "unknown pruner": ("pruner: {name: ahsa}", "pruner.name", "did you mean 'asha'?"),
    "pruner alone": ("pruner: asha", "pruner", "say what it looks at", "every: 50"),
    "pruner of a stage without a curve": (
        "pruner: {name: asha, stage: extract_codes}",
        "pruner.stage", "'train_tokenizer', 'train_generator'",
    ),
    "pruner's key": ("pruner: {name: asha, evry: 2}", "pruner.evry", "did you mean 'every'?"),
    "pruner between logged steps": (
        "pruner: {name: asha, every: 3}",
        "pruner.every", "multiple of 2", "log_every",
    ),
    "pruner that never looks": (
        "pruner: {name: asha, every: 2, min_steps: 12}",
        "pruner.min_steps", "12 steps", "before that",
    ),
    "factor of one": ("pruner: {name: asha, every: 2, factor: 1}", "pruner.factor", "at least 2"),
    "seed": ("seed: x", "seed", "a whole number from 0"),
    "none at once": ("at_once: 0", "at_once", "at least 1"),
    "storage": ("storage: 5", "storage", "text"),
    "transfer of what is searched": (
        "transfer: {generator.lr: 1}",
        "transfer.generator.lr", "is searched itself",
    ),
}  # fmt: skip
MALFORMED |= {
    case: (
        f"search:\n  space: {{{entry}}}\n{REST}", 2,
        f"search.space.{entry.partition(':')[0]}{end}", tuple(parts),
    )
    for case, (entry, end, *parts) in WRONG_SPACES.items()
}  # fmt: skip
MALFORMED |= {
    case: (f"{BLOCK}  {line}\n", 5, f"search.{key}", tuple(parts))
    for case, (line, key, *parts) in WRONG_LINES.items()
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
