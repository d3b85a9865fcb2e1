"""Fronts of any number of results."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from analysis import RequestError, load_runs, pareto
from analysis.statistics.pareto import undominated


def by_definition(costs: list[tuple[float, ...]]) -> list[bool]:
    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        pairs = [*zip(one, other, strict=True)]
        return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

    return [not any(beats(other, one) for other in costs) for one in costs]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_front_is_what_the_definition_says(count: int) -> None:
    rng = np.random.default_rng(count)
    # Few values, so that many points tie in some cost or are equal.
    costs = [tuple(map(float, row)) for row in rng.integers(0, 4, (60, count))]
    assert undominated(costs) == by_definition(costs)
    assert undominated([*product((0.0, 1.0), repeat=count)]) == [True] + [False] * (2**count - 1)


def test_directions_and_sizes(uri: str) -> None:
    runs = load_runs("decoder_scaling", uri)
    two = {p.group.label: p.on_front for p in pareto(runs, ["psnr", "lpips"])}
    assert two == {"S-S": False, "S-S +reg": False, "S-B": True, "S-L": False, "S-L +reg": False}
    both = {p.group.label: p.on_front for p in pareto(runs, ["psnr", "lpips", "ar_val_loss"])}
    assert all(both.values()), "simpler codes lose more, in every setting"
    sized = {p.group.label: p.on_front for p in pareto(runs, ["psnr", "params_tokenizer"])}
    assert sized == {"S-S": True, "S-S +reg": False, "S-B": True, "S-L": False, "S-L +reg": False}


def test_a_request_that_cannot_be_met_is_refused(uri: str) -> None:
    runs = load_runs("decoder_scaling", uri)
    with pytest.raises(RequestError, match="no result or setting is called pnsr"):
        pareto(runs, ["pnsr", "ar_val_loss"])
    with pytest.raises(RequestError, match="two results or more"):
        pareto(runs, ["psnr"])
    with pytest.raises(RequestError, match="no setting has all of psnr, rfid"):
        pareto(runs, ["psnr", "rfid"])
