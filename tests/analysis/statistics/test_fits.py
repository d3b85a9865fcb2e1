"""Fits of planted laws: the truth lies in the interval as often as the interval says."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure

from analysis import plot_fit
from analysis.statistics.fits import Law, LawFit, fit_power_law
from analysis.store.requests import RequestError

Floats = npt.NDArray[np.float64]
TRUTHS: dict[Law, tuple[float, ...]] = {"power": (50.0, -0.1), "saturating": (40.0, 0.3, 2.0)}
NOISE: dict[Law, float] = {"power": 0.02, "saturating": 0.01}


def sizes(points: int, seeds: int) -> Floats:
    return np.repeat(np.geomspace(1e6, 1e9, points), seeds)


def planted(law: Law, x: Floats, rng: np.random.Generator, noise: float) -> Floats:
    errors = rng.normal(size=len(x)) * noise
    if law == "power":
        a, b = TRUTHS[law]
        return a * x**b * np.exp(errors)
    a, b, c = TRUTHS[law]
    return c + a * x**-b + errors


def test_exact_laws_are_recovered() -> None:
    rng = np.random.default_rng(0)
    for law, truth in TRUTHS.items():
        x = sizes(5, 1)
        found = fit_power_law(list(x), list(planted(law, x, rng, 0.0)), law=law)
        values = [p.value for p in found.parameters.values()]
        assert values == pytest.approx(truth, rel=1e-2)
        assert found.status == "converged"
        assert found.predict([1e10]) == pytest.approx(
            planted(law, np.array([1e10]), rng, 0.0), rel=1e-2
        )


def coverage(law: Law, points: int, seeds: int, simulations: int) -> tuple[Floats, float]:
    """How often the interval of each parameter, and of the held-out prediction, was right."""
    rng = np.random.default_rng(1)
    x = sizes(points, seeds)
    hits, held = np.zeros(len(TRUTHS[law])), 0
    for i in range(simulations):
        y = planted(law, x, rng, NOISE[law])
        found = fit_power_law(list(x), list(y), law=law, replicates=400, seed=i)
        pairs = zip(found.parameters.values(), TRUTHS[law], strict=True)
        hits += [p.low <= truth <= p.high for p, truth in pairs]
        held += found.held_out is not None and found.held_out.covered
    return hits / simulations, held / simulations


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("law", "points", "seeds", "simulations"),
    [
        ("power", 4, 1, 200),
        ("power", 5, 3, 200),
        pytest.param("power", 5, 3, 500, marks=pytest.mark.slow),
        pytest.param("saturating", 5, 3, 500, marks=pytest.mark.slow),
    ],
)
def test_intervals_cover_at_the_nominal_rate(
    law: Law, points: int, seeds: int, simulations: int
) -> None:
    parameters, held_out = coverage(law, points, seeds, simulations)
    margin = 3 * math.sqrt(0.95 * 0.05 / simulations)
    assert (np.abs(parameters - 0.95) < margin).all(), parameters
    assert abs(held_out - 0.95) < margin


def test_three_points_without_seeds_are_hardly_known() -> None:
    """Leave one residual degree of freedom: the interval must be far wider than with seeds."""
    rng = np.random.default_rng(2)

    def width(seeds: int) -> float:
        x = sizes(3, seeds)
        found = fit_power_law(list(x), list(planted("power", x, rng, 0.02)))
        return found.parameters["b"].high - found.parameters["b"].low

    assert np.median([width(1) for _ in range(20)]) > 5 * np.median([width(4) for _ in range(20)])


def test_a_law_that_bends_is_caught_by_the_held_out_size() -> None:
    x = sizes(5, 3)
    rng = np.random.default_rng(3)
    y = 2 + 4000 * x**-0.6 + rng.normal(size=len(x)) * 0.001
    bent = fit_power_law(list(x), list(y))
    assert bent.held_out is not None
    assert not bent.held_out.covered
    assert bent.held_out.relative_error < 0, "a power law goes below the floor"
    assert "outside the interval" in bent.sentence
    right = fit_power_law(list(x), list(y), law="saturating")
    assert right.held_out is not None
    assert right.held_out.covered
    assert right.parameters["c"].value == pytest.approx(2, abs=0.01)


def test_an_exponent_that_the_data_do_not_determine_says_so() -> None:
    x = sizes(5, 1)
    found = fit_power_law(list(x), list(3 - 0.1 * np.log(x)), law="saturating")
    assert found.status == "bound hit"
    assert "ran into its bound" in found.sentence


def test_too_few_sizes_are_refused_and_the_fewest_are_not_checked() -> None:
    with pytest.raises(RequestError, match=r"2 sizes cannot show a law: .* at least 3"):
        fit_power_law([1, 2, 2, 1], [1, 2, 3, 4])
    with pytest.raises(RequestError, match="at least 4"):
        fit_power_law([1, 2, 3], [3, 2, 1], law="saturating")
    fewest = fit_power_law([1, 2, 3], [1.0, 2.1, 2.9])
    assert fewest.held_out is None
    assert "not checked" in fewest.sentence


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        ([0, 1, 2], [1, 2, 3], "positive sizes"),
        ([1, 2, 3], [1, -2, 3], "law='saturating'"),
        ([1, 2, 3], [1, math.nan, 3], "finite"),
        ([1, 2, 3], [1, 2], "one finite value per size"),
    ],
)
def test_values_that_no_law_has(x: list[float], y: list[float], match: str) -> None:
    with pytest.raises(RequestError, match=match):
        fit_power_law(x, y)


def test_equal_requests_give_equal_fits() -> None:
    x = sizes(4, 2)
    y = planted("power", x, np.random.default_rng(4), 0.05)
    first, second = (fit_power_law(list(x), list(y)) for _ in range(2))
    assert first == second
    assert isinstance(first, LawFit)


def test_the_plot_shows_seeds_curve_and_prediction() -> None:
    x = sizes(4, 2)
    y = planted("power", x, np.random.default_rng(5), 0.05)
    found = fit_power_law(list(x), list(y))
    axes = Figure().subplots()
    assert plot_fit(axes, found, list(x), list(y)) is axes
    seeds, curve = axes.lines[:2]
    assert list(seeds.get_ydata()) == list(y)
    assert curve.get_ydata()[-1] == pytest.approx(found.predict([1e9])[0])
    assert found.held_out is not None
    (bar,) = axes.containers
    assert bar.lines[0].get_ydata() == pytest.approx(found.held_out.predicted.value)
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
