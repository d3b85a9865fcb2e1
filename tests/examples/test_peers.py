"""The tokenizers of other papers that stand beside GigaTok as a plug-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gigatok import plugins
from gigatok.config.kinds.tokenizers import TOKENIZERS
from gigatok.contracts.tokenizer import broken_promises
from orchestration.sweep.definition import load_sweep
from orchestration.sweep.formulas.quantities import computed

PEERS = Path(__file__).resolve().parents[2] / "examples" / "peers"


@pytest.fixture(scope="module", autouse=True)
def peers() -> Iterator[None]:
    """Register them, and take them out again: other tests of this process count architectures."""
    before = dict(TOKENIZERS)
    loaded = plugins.load([str(PEERS)], Path())
    yield
    for plugin in loaded:
        del plugins.LOADED[plugin.package]
    TOKENIZERS.clear()
    TOKENIZERS.update(before)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["vqvae", "titok"])
def test_peers_keep_the_contract(name: str) -> None:
    assert broken_promises(TOKENIZERS[name]) == []


@pytest.mark.heavy
def test_peers_have_equal_rate_and_compute() -> None:
    trials = load_sweep(str(PEERS.parent / "sweeps" / "peers.yaml")).expansion.trials
    names = {trial.config.tokenizer.architecture.name: trial.config for trial in trials}
    assert names.keys() == {"gigatok", "vqvae", "titok"}
    bits = {config.tokenizer.bits_per_image(config.data.image_size) for config in names.values()}
    assert bits == {64 * 9}
    flops = [computed("flops.train", config) for config in names.values()]
    assert max(flops) < 1.06 * min(flops)
