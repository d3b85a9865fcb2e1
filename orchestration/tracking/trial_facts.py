"""Facts of a trial that follow from its config: what the sweep derives, and what sizes are of."""

from __future__ import annotations

import json

from gigatok.names import PREFIX_COMPUTED, PREFIX_DERIVED, SIZES
from orchestration.plan.graph import PlannedTrial
from orchestration.sweep.formulas.quantities import computed

_COMPUTED = tuple(
    dict.fromkeys(
        column.removeprefix(PREFIX_COMPUTED)
        for size in SIZES.values()
        for column in size.reads
        if column.startswith(PREFIX_COMPUTED)
    )
)


def fact_params(planned: PlannedTrial) -> dict[str, str]:
    """Make the params `derived.NAME` and `computed.NAME` of a trial."""
    derived = {
        PREFIX_DERIVED + name: value if isinstance(value, str) else json.dumps(value)
        for name, value in planned.trial.derived.items()
    }
    values = ((name, computed(name, planned.trial.config)) for name in _COMPUTED)
    return derived | {
        PREFIX_COMPUTED + name: json.dumps(value) for name, value in values if value is not None
    }
