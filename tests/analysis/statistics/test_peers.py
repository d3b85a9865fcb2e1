"""Fits and tests against scipy, statsmodels and lmfit, on the same numbers.

They are imported in the tests: that takes seconds, which others should not pay for.
"""

from __future__ import annotations

import numpy as np
import pytest

from analysis.statistics.estimates import sign_flip_p
from analysis.statistics.fits import fit_power_law

pytestmark = pytest.mark.heavy
SIZES = np.geomspace(1e6, 1e9, 7)
NOISE = np.random.default_rng(4).normal(size=7)


@pytest.mark.parametrize("seeds", [3, 6, 10])
def test_the_sign_flip_test(seeds: int) -> None:
    from scipy.stats import permutation_test

    differences = np.random.default_rng(seeds).normal(0.5, 1, seeds)
    peer = permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(differences.tolist()) == pytest.approx(peer.pvalue)


def test_the_power_law_and_its_intervals() -> None:
    """Least squares of logarithms, whose exact t intervals the bootstrap comes to."""
    from statsmodels.regression.linear_model import OLS

    y = 4 * (SIZES / 1e6) ** -0.08 * np.exp(0.02 * NOISE)
    found = fit_power_law(SIZES.tolist(), y.tolist(), replicates=20_000)
    logs = np.log(SIZES / found.reference)
    columns = np.column_stack([np.ones(7), logs])
    line = OLS(np.log(y), columns).fit()
    a, b = found.parameters["a"], found.parameters["b"]
    assert (np.log(a.value), b.value) == pytest.approx(tuple(line.params))
    assert (b.low, b.high) == pytest.approx(tuple(line.conf_int()[1]), rel=0.02)
    assert np.log([a.low, a.high]) == pytest.approx(line.conf_int()[0], rel=0.02)
    assert found.residual == pytest.approx(np.sqrt(line.mse_resid))
    bend = OLS(np.log(y), np.column_stack([columns, logs**2])).fit()
    assert found.bend == pytest.approx(bend.pvalues[2])
    assert found.held_out is not None
    smaller = OLS(np.log(y[:-1]), columns[:-1]).fit().get_prediction(columns[-1:])
    held = found.held_out.predicted
    assert np.log(held.value) == pytest.approx(smaller.predicted_mean[0])
    ends = smaller.conf_int(obs=True)[0]
    assert np.log([held.low, held.high]) - np.log(held.value) == pytest.approx(
        ends - smaller.predicted_mean[0], rel=0.04
    )


@pytest.mark.parametrize("law", ["power", "saturating"])
def test_parameters_are_those_of_lmfit(law: str) -> None:
    """A search for the least squares, from another start."""
    from lmfit import Parameters, minimize

    x = SIZES / np.exp(np.log(SIZES).mean())
    curves = {
        "power": 3 * x**-0.2 * np.exp(0.02 * NOISE),
        "saturating": 2 + x**-0.3 + 0.01 * NOISE,
    }
    y = curves[law]

    def left(p: Parameters) -> np.ndarray:
        if law == "power":
            return np.asarray(np.log(y) - np.log(p["a"] * x ** p["b"]))
        return np.asarray(y - p["c"] - p["a"] * x ** -p["b"])

    start = Parameters()
    start.add("a", 0.7, min=0)
    start.add("b", 0.4)
    if law == "saturating":
        start.add("c", 1.0)
    peer = minimize(left, start)
    found = fit_power_law(SIZES.tolist(), y.tolist(), law=law, hold_out=False)  # type: ignore[arg-type]
    ours = {name: p.value for name, p in found.parameters.items()}
    # The search for the saturating exponent is on a grid, of steps of 1.4e-5.
    assert ours == pytest.approx(dict(peer.params.valuesdict()), rel=1e-4)
    assert found.residual == pytest.approx(np.sqrt(peer.redchi), rel=1e-4)
