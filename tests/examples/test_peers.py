"""The tokenizers of other papers that stand beside GigaTok as a plug-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gigatok import plugins
from gigatok.config.kinds.tokenizers import TOKENIZERS
from gigatok.contracts.tokenizer import broken_promises

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
