"""Every kind of thing that a plug-in may register has a contract."""

from __future__ import annotations

from importlib import import_module

import pytest

from gigatok.plugins import contract_of, kinds

REGISTRIES = ("gigatok.stages", "orchestration.backends", "analysis.figures.gallery")


@pytest.mark.heavy
def test_every_kind_has_a_contract() -> None:
    for module in REGISTRIES:
        import_module(module)
    assert {"stage", "metric", "data set", "quantizer", "backend", "figure"} <= set(kinds())
    for kind in kinds():
        contract = import_module(contract_of(kind))
        assert contract.CHECKS, kind
        assert contract.broken_promises, kind
