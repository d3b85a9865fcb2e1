"""Facts of a trial that follow from its config: what the sweep derives, and what sizes are of."""

from __future__ import annotations

import json

from gigatok.config import TrialConfig
from gigatok.names import PREFIX_COMPUTED, PREFIX_DERIVED, SIZES
from orchestration.plan.graph import PlannedTrial
from orchestration.sweep.formulas.expressions import Value
from orchestration.sweep.formulas.quantities import quantities

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
    computed = ((name, _computed(name, planned.trial.config)) for name in _COMPUTED)
    return derived | {
        PREFIX_COMPUTED + name: json.dumps(value) for name, value in computed if value is not None
    }


def _computed(name: str, config: TrialConfig) -> Value | None:
    try:
        return quantities()[name].of(config)
    # A plan that was recorded with a plug-in that is gone can still be sent: without what only
    # the plug-in can compute.
    except (ValueError, LookupError, AttributeError, TypeError):
        return None
