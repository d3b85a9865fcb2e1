"""Fits of planted laws: the truth lies in the interval as often as the interval says."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from scipy import stats

from analysis import plot_fit
from analysis.statistics.fits import LawFit, fit_power_law, fit_seeds
from analysis.statistics.laws import Law
from analysis.store.requests import RequestError

Floats = npt.NDArray[np.float64]
TRUTHS: dict[Law, tuple[float, ...]] = {"power": (50.0, -0.1), "saturating": (40.0, 0.3, 2.0)}
X0 = math.sqrt(1e6 * 1e9)
"""Geometric mean of `sizes`."""
NOISE: dict[Law, float] = {"power": 0.02, "saturating": 0.01}


def sizes(points: int, seeds: int) -> Floats:
    return np.repeat(np.geomspace(1e6, 1e9, points), seeds)


def truth_at_x0(law: Law) -> tuple[float, ...]:
    a, b, *c = TRUTHS[law]
    return a * X0 ** (b if law == "power" else -b), b, *c


def planted(
    law: Law, x: Floats, rng: np.random.Generator, noise: float, shared: float = 0.0
) -> Floats:
    """A law with noise, of which the share `shared` of the variance is that of the size."""
    _, place = np.unique(x, return_inverse=True)
    of_size = rng.normal(size=place.max() + 1)[place]
    own = rng.normal(size=len(x))
    errors = noise * (math.sqrt(shared) * of_size + math.sqrt(1 - shared) * own)
    if law == "power":
        a, b = TRUTHS[law]
        return a * x**b * np.exp(errors)
    a, b, c = TRUTHS[law]
    return c + a * x**-b + errors


def test_exact_laws_are_recovered() -> None:
    rng = np.random.default_rng(0)
    for law in TRUTHS:
        truth = truth_at_x0(law)
        x = sizes(5, 1)
        found = fit_power_law(list(x), list(planted(law, x, rng, 0.0)), law=law)
        values = [p.value for p in found.parameters.values()]
        assert values == pytest.approx(truth, rel=1e-2)
        assert found.status == "converged"
        assert found.predict([1e10]) == pytest.approx(
            planted(law, np.array([1e10]), rng, 0.0), rel=1e-2
        )


def coverage(
    law: Law, points: int, seeds: int, shared: float, simulations: int
) -> tuple[Floats, float]:
    """How often the interval of each parameter, and of the held-out prediction, was right."""
    rng = np.random.default_rng(1)
    x = sizes(points, seeds)
    hits, held = np.zeros(len(TRUTHS[law])), 0
    for i in range(simulations):
        y = planted(law, x, rng, NOISE[law], shared)
        found = fit_power_law(list(x), list(y), law=law, replicates=400, seed=i)
        pairs = zip(found.parameters.values(), truth_at_x0(law), strict=True)
        hits += [p.low <= truth <= p.high for p, truth in pairs]
        held += found.held_out is not None and found.held_out.covered
    return hits / simulations, held / simulations


@pytest.mark.parametrize(
    ("law", "points", "seeds", "shared", "simulations"),
    [
        ("power", 4, 1, 0.0, 200),
        ("power", 5, 3, 0.0, 200),
        ("power", 5, 3, 0.9, 200),
        pytest.param("power", 5, 3, 0.5, 500, marks=pytest.mark.slow),
        pytest.param("saturating", 5, 3, 0.9, 500, marks=pytest.mark.slow),
    ],
)
def test_intervals_cover_at_the_nominal_rate_however_alike_seeds_are(
    law: Law, points: int, seeds: int, shared: float, simulations: int
) -> None:
    parameters, held_out = coverage(law, points, seeds, shared, simulations)
    margin = 3 * math.sqrt(0.95 * 0.05 / simulations)
    assert (np.abs(parameters - 0.95) < margin).all(), parameters
    assert abs(held_out - 0.95) < margin


def test_three_sizes_are_hardly_known_whatever_the_seeds() -> None:
    """Three means leave one degree of freedom; seeds that share their misfit add none."""
    rng = np.random.default_rng(2)

    def width(points: int) -> float:
        x = sizes(points, 4)
        found = fit_power_law(list(x), list(planted("power", x, rng, 0.02, shared=0.9)))
        return found.parameters["b"].high - found.parameters["b"].low

    assert np.median([width(3) for _ in range(20)]) > 3 * np.median([width(6) for _ in range(20)])


def test_an_interval_that_says_nothing_is_not_quoted() -> None:
    found = fit_power_law([1e6, 2e6, 4e6], [1.0, 3.0, 1.2])
    assert found.status == "undetermined"
    assert "not determined; b lies between" in found.sentence
    assert " a = " not in found.sentence


def test_one_seed_per_size_is_no_law() -> None:
    with pytest.raises(RequestError, match="one seed per size"):
        fit_seeds([(1.0, 2.0), (2.0, 3.0), (4.0, 4.0)])
    with pytest.raises(RequestError, match="2 sizes cannot show a law"):
        fit_seeds([(1.0, 2.0), (2.0, 3.0)])
    found = fit_seeds([(1.0, 2.0), (2.0, 3.0), (4.0, 4.0), (4.0, 4.1)])
    assert (found.sizes, found.observations) == ((1.0, 2.0, 4.0), 4)


def test_numbers_agree_with_a_regression_of_the_means() -> None:
    """scipy's line through the logarithms of per-size geometric means, and its t interval."""
    x = sizes(6, 3)
    y = planted("power", x, np.random.default_rng(6), 0.05)
    found = fit_power_law(list(x), list(y), replicates=20_000)
    log_x = np.log(np.unique(x) / X0)
    line = stats.linregress(log_x, np.log(y).reshape(6, 3).mean(1))
    half = stats.t.ppf(0.975, 4) * line.stderr
    b = found.parameters["b"]
    assert b.value == pytest.approx(line.slope)
    assert (b.low, b.high) == pytest.approx((line.slope - half, line.slope + half), rel=0.02)
    a = found.parameters["a"]
    half = stats.t.ppf(0.975, 4) * line.intercept_stderr
    assert a.value == pytest.approx(math.exp(line.intercept))
    assert (a.low, a.high) == pytest.approx(
        (math.exp(line.intercept - half), math.exp(line.intercept + half)), rel=0.02
    )


def test_a_law_that_bends_is_said_to() -> None:
    x = sizes(5, 3)
    rng = np.random.default_rng(3)
    y = 2 + 4000 * x**-0.6 + rng.normal(size=len(x)) * 0.001
    bent = fit_power_law(list(x), list(y))
    assert bent.bend is not None
    assert bent.bend < 0.05
    assert "bend away from the law" in bent.sentence
    assert bent.held_out is not None
    assert bent.held_out.relative_error < 0, "a power law goes below the floor"
    right = fit_power_law(list(x), list(y), law="saturating")
    assert right.held_out is not None
    assert right.held_out.covered
    assert right.parameters["c"].value == pytest.approx(2, abs=0.01)


def test_a_bend_is_seldom_said_of_a_law_that_holds() -> None:
    rng = np.random.default_rng(7)
    x = sizes(5, 3)
    found = [
        fit_power_law(list(x), list(planted("power", x, rng, 0.05, shared=0.9)), replicates=10)
        for _ in range(400)
    ]
    # 5 % of 400 is 20, with a standard deviation of 4.4.
    assert sum(fit.bend < 0.05 for fit in found if fit.bend is not None) < 34


def test_a_held_out_size_off_the_law_is_outside() -> None:
    x = sizes(6, 2)
    y = planted("power", x, np.random.default_rng(8), 0.01)
    y[x == x.max()] *= 1.5
    found = fit_power_law(list(x), list(y))
    assert found.held_out is not None
    assert not found.held_out.covered
    assert "outside the interval" in found.sentence


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
