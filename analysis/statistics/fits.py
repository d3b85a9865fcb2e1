"""Scaling laws with intervals: how a metric changes with size, and what the fit does not know.

The power law is y = a x^b, fitted by least squares of log y: its errors are relative. The
saturating one is y = c + a x^-b with b > 0, fitted by least squares of y; for every b the best
a and c are a linear regression, so only b is searched for. Intervals are bootstrap-t: each
replicate draws every seed of every point anew around the fitted curve, is fitted again, and its
error is divided by its own standard error, as few points need (Efron and Tibshirani 1993,
chapter 12.5). S replicates, N observations, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from analysis.statistics.groups import Group, require_one_way
from analysis.store.requests import RequestError

Floats = npt.NDArray[np.float64]
Law = Literal["power", "saturating"]
Status = Literal["converged", "bound hit"]
FORMULAS: dict[Law, str] = {"power": "y = a x^b", "saturating": "y = c + a x^-b"}
MIN_SIZES: dict[Law, int] = {"power": 3, "saturating": 4}
"""Parameters of the law plus one: fewer sizes lie on some curve whatever they are."""
EXPONENTS = (0.01, 4.0)
"""Bounds of a saturating law's b: below, it is a straight line in log x; above, a step."""
REPLICATES = 1000
CONFIDENCE = 0.95
# The grid over log b spans 6.0 (from .01 to 4). Each round searches the two steps around the best
# of 121 values, 60 times finer, so that three rounds leave b known to 1.4e-5, relatively.
_GRID = 121
_REFINEMENTS = 3


@dataclass(frozen=True)
class Bounded:
    """A value and its 95 % interval; infinite bounds say that the data do not bound it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class HeldOut:
    """The largest size, predicted from the smaller ones.

    Attributes:
        size: that was left out of the fit.
        predicted: with the interval for the mean of as many seeds as were measured there.
        observed: that mean.
        relative_error: (predicted - observed) / |observed|.
        covered: whether the interval holds what was observed.
    """

    size: float
    predicted: Bounded
    observed: float
    relative_error: float
    covered: bool


@dataclass(frozen=True)
class LawFit:
    """A fitted law.

    Attributes:
        law: `power` or `saturating`.
        parameters: a, b and for the saturating law c, with intervals.
        status: `bound hit` where the exponent ran into `EXPONENTS`: then it is not measured.
        sizes: the distinct sizes, ascending.
        observations: number of values, seeds counted singly.
        residual: standard deviation around the curve: relative for the power law, else in
            units of y.
        held_out: None where fewer sizes would remain than a fit needs.
        sentence: all of it in words.
    """

    law: Law
    parameters: dict[str, Bounded]
    status: Status
    sizes: tuple[float, ...]
    observations: int
    residual: float
    held_out: HeldOut | None

    def predict(self, sizes: Sequence[float] | Floats) -> Floats:
        """Evaluate the curve at some sizes."""
        # The dict keeps the order a, b, c, which is that of the columns that `curve` takes.
        values = np.array([p.value for p in self.parameters.values()])
        found: Floats = _LAWS[self.law].curve(np.asarray(sizes, float), values[None])[0]
        return found

    @property
    def sentence(self) -> str:
        """Say all of it in words."""
        parts = [
            f"{name} = {p.value:.3g} [{p.low:.3g}, {p.high:.3g}]"
            for name, p in self.parameters.items()
        ]
        text = f"{FORMULAS[self.law]}: {', '.join(parts)} (95 % bootstrap interval; "
        text += f"{len(self.sizes)} sizes, {self.observations} values)."
        b = self.parameters["b"]
        # A saturating b is positive by its bounds, so its interval cannot show that there is no
        # trend.
        if self.law == "power" and b.low <= 0 <= b.high:
            text += " b may be 0: no trend is shown."
        if self.status == "bound hit":
            text += " The exponent ran into its bound: the data do not determine it."
        if self.held_out is None:
            return text + " Too few sizes to hold out the largest: the law is not checked."
        held = self.held_out
        verdict = "inside" if held.covered else "outside"
        return (
            f"{text} Held out, the largest size is predicted as {held.predicted.value:.4g} "
            f"[{held.predicted.low:.4g}, {held.predicted.high:.4g}] and measured as "
            f"{held.observed:.4g}: off by {held.relative_error:+.1%}, {verdict} the interval."
        )


def fit_power_law(
    sizes: Sequence[float],
    values: Sequence[float],
    *,
    law: Law = "power",
    hold_out: bool = True,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> LawFit:
    """Fit a law to observations; equal sizes are seeds of one point.

    Args:
        sizes: positive, one per observation.
        values: finite; positive for the power law.
        law: `power` or `saturating`.
        hold_out: also predict the largest size from the others.
        replicates: number of bootstrap samples.
        seed: for the random numbers of the bootstrap.

    Raises:
        RequestError: fewer than `MIN_SIZES` sizes, or values that the law cannot have.
    """
    x, y = np.asarray(sizes, float), np.asarray(values, float)
    _check(x, y, law)
    # A fixed seed: the same trials always give the same sentence.
    rng = np.random.default_rng(seed)
    fitted = _bootstrap(x, y, law, replicates, rng)
    found = tuple(float(size) for size in np.unique(x))
    # The largest size is held out because extrapolation is what a scaling law is for.
    held = None
    if hold_out and len(found) > MIN_SIZES[law]:
        held = _hold_out(x, y, law, replicates, rng)
    # The power law has no c.
    parameters = dict(zip("abc", fitted.intervals(fitted.best), strict=False))
    status: Status = "bound hit" if fitted.at_bound else "converged"
    return LawFit(law, parameters, status, found, len(x), fitted.sigma, held)


def fit_metric(found: Sequence[Group], size: str, metric: str, law: Law = "power") -> LawFit:
    """Fit a metric over a size, all seeds of all settings.

    Raises:
        RequestError: too few sizes, or values measured under several protocols.
    """
    require_one_way(found, metric, "fit")
    pairs = [
        (sizes[seed], value)
        for group in found
        for sizes in [group.values(size)]
        for seed, value in group.values(metric).items()
        if seed in sizes
    ]
    return fit_power_law([x for x, _ in pairs], [y for _, y in pairs], law=law)


def _check(x: Floats, y: Floats, law: Law) -> None:
    if law not in FORMULAS:
        raise RequestError(f"law {law!r}: give one of {', '.join(FORMULAS)}")
    if len(x) != len(y) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise RequestError("a fit needs one finite value per size; drop what was not measured")
    if (x <= 0).any() or (law == "power" and (y <= 0).any()):
        raise RequestError(
            "a power law has positive sizes and values only; for values that may be negative "
            "or approach a floor give law='saturating'"
        )
    sizes = len(np.unique(x))
    if sizes < MIN_SIZES[law]:
        raise RequestError(
            f"{sizes} sizes cannot show a law: {FORMULAS[law]} needs at least {MIN_SIZES[law]}"
        )


@dataclass(frozen=True)
class _Law:
    """A curve, its least-squares fit to S data sets at once, and its derivatives."""

    curve: Callable[[Floats, Floats], Floats]
    """(N,) sizes and (S, P) parameters to (S, N)."""
    solve: Callable[[Floats, Floats], Floats]
    """(N,) sizes and (S, N) values to (S, P)."""
    jacobian: Callable[[Floats, Floats], Floats]
    """(N,) sizes and (S, P) parameters to (S, N, P), in the space of the residuals."""
    space: Callable[[Floats], Floats]
    """Space in which residuals are taken."""
    back: Callable[[Floats], Floats]


def _power_curve(x: Floats, p: Floats) -> Floats:
    found: Floats = p[:, :1] * x ** p[:, 1:2]
    return found


def _power_solve(x: Floats, y: Floats) -> Floats:
    log_x, log_y = np.log(x), np.log(y)
    centred = log_x - log_x.mean()
    # Ordinary least squares in closed form, for all S data sets at once. In logarithms, so that a
    # loss of 10 and one of .1 count alike by their relative error.
    slope = log_y @ centred / (centred @ centred)
    return np.stack([np.exp(log_y.mean(1) - slope * log_x.mean()), slope], 1)


def _power_jacobian(x: Floats, p: Floats) -> Floats:
    """Derive log y by a and b."""
    # log y = log a + b log x: the derivatives are 1 / a and log x.
    ones = np.ones((len(p), len(x)))
    return np.stack([ones / p[:, :1], ones * np.log(x)], 2)


def _saturating_curve(x: Floats, p: Floats) -> Floats:
    found: Floats = p[:, 2:3] + p[:, :1] * x ** -p[:, 1:2]
    return found


def _saturating_solve(x: Floats, y: Floats) -> Floats:
    """Search b on a grid that is refined around the best, then solve for a and c.

    Sizes are taken relative to their geometric mean, so that x^-b stays near 1.
    """
    # Geometric mean of the sizes; without it x^-b underflows for large b.
    scale = np.exp(np.log(x).mean())
    low = np.full(len(y), np.log(EXPONENTS[0]))
    high = np.full(len(y), np.log(EXPONENTS[1]))
    b = np.zeros(len(y))
    # Variable projection (Golub and Pereyra, SIAM Journal on Numerical Analysis 10(2), 1973): for
    # a given b the curve is linear in a and c, so that only b is searched. A gradient search in
    # all three needs a start and may fail; the bootstrap would have to notice that 1000 times.
    for _ in range(_REFINEMENTS):
        grid = np.exp(low[:, None] + np.linspace(0, 1, _GRID) * (high - low)[:, None])
        best = _squared_error(x / scale, y, grid).argmin(1)
        rows = np.arange(len(y))
        b = grid[rows, best]
        # The minimum lies between the neighbours of the best value of the grid.
        low = np.log(grid[rows, np.maximum(best - 1, 0)])
        high = np.log(grid[rows, np.minimum(best + 1, _GRID - 1)])
    basis = (x / scale) ** -b[:, None]
    centred = basis - basis.mean(1, keepdims=True)
    a = (centred * y).sum(1) / (centred**2).sum(1)
    c = y.mean(1) - a * basis.mean(1)
    # Back from sizes relative to their mean: a (x / s)^-b = (a s^b) x^-b.
    return np.stack([a * scale**b, b, c], 1)


def _squared_error(x: Floats, y: Floats, b: Floats) -> Floats:
    """Compute what the best a and c leave, up to a constant per data set: (S, G) for (S, G) b."""
    basis = np.exp(-b[..., None] * np.log(x))
    centred = basis - basis.mean(-1, keepdims=True)
    # A regression on one variable leaves sum(y^2) - cov^2 / var (centred); the first term is the
    # same for every b and is left out.
    error: Floats = -((centred @ y[:, :, None])[..., 0] ** 2) / (centred**2).sum(-1)
    return error


def _saturating_jacobian(x: Floats, p: Floats) -> Floats:
    # y = c + a x^-b: the derivatives by a, b and c are x^-b, -a x^-b log x and 1.
    power = x ** -p[:, 1:2]
    slope = -p[:, :1] * power * np.log(x)
    return np.stack([power, slope, np.ones_like(power)], 2)


_LAWS: dict[Law, _Law] = {
    "power": _Law(_power_curve, _power_solve, _power_jacobian, np.log, np.exp),
    # `np.positive` gives back what it gets: these residuals are in the units of y.
    "saturating": _Law(
        _saturating_curve, _saturating_solve, _saturating_jacobian, np.positive, np.positive
    ),
}


@dataclass(frozen=True)
class _Fitted:
    """The best parameters and those of replicates, with standard errors: (P,), (S, P)."""

    law: Law
    best: Floats
    error: Floats
    replicas: Floats
    replica_errors: Floats
    sigma: float
    replica_sigmas: Floats
    x: Floats

    @property
    def at_bound(self) -> bool:
        low, high = EXPONENTS
        # The ends of the grid are the bounds only up to the rounding of exp(log(bound)).
        return self.law == "saturating" and not low * 1.001 < self.best[1] < high * 0.999

    def intervals(self, best: Floats) -> list[Bounded]:
        """Compute bootstrap-t intervals; that of a power law's a in log a, which is symmetric."""
        t = _ratio(self.replicas - best, self.replica_errors)
        found = []
        for i, value in enumerate(best):
            if i == 0 and self.law == "power":
                # The delta method gives the standard error of log a as that of a over a.
                logs = np.log(self.replicas[:, 0] / value)
                t_i = _ratio(logs, self.replica_errors[:, 0] / self.replicas[:, 0])
                low, high = _bounds(0.0, self.error[0] / value, t_i)
                found.append(
                    Bounded(float(value), *(float(value * np.exp(b)) for b in (low, high)))
                )
            else:
                found.append(Bounded(float(value), *_bounds(float(value), self.error[i], t[:, i])))
        return found


def _bounds(value: float, error: float, t: Floats) -> tuple[float, float]:
    """Compute the symmetric bootstrap-t interval: the quantile of |t| times the standard error."""
    # Hall, Journal of the Royal Statistical Society B 50(1), 1988: the error of its coverage is of
    # a smaller order in the number of observations than that of the two-tailed interval.
    width = float(np.quantile(np.abs(t), CONFIDENCE)) * float(error)
    return value - width, value + width


def _ratio(difference: Floats, error: Floats) -> Floats:
    """Divide differences by standard errors; an error of 0 gives 0 for no difference, else inf."""
    # Infinite t make infinite bounds: the data then do not bound the parameter, and that is said.
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(
            error > 0, difference / error, np.where(difference == 0, 0.0, np.inf)
        )
    return found


def _bootstrap(
    x: Floats, y: Floats, law: Law, replicates: int, rng: np.random.Generator
) -> _Fitted:
    best = _LAWS[law].solve(x, y[None])
    error, sigma = _errors(x, y[None], best, law)
    # Resampling observations, the usual bootstrap, fails with so few sizes.
    # Parametric: of 3 points drawn with replacement, 7 in 9 samples have fewer than 3 sizes.
    noise = rng.normal(size=(replicates, len(x))) * sigma[0]
    centre = _LAWS[law].space(_LAWS[law].curve(x, best))
    drawn = _LAWS[law].back(centre + noise)
    replicas = _LAWS[law].solve(x, drawn)
    # Bootstrap-t needs the standard error of every replicate, not only that of the data.
    errors, sigmas = _errors(x, drawn, replicas, law)
    return _Fitted(law, best[0], error[0], replicas, errors, float(sigma[0]), sigmas, x)


def _errors(x: Floats, y: Floats, p: Floats, law: Law) -> tuple[Floats, Floats]:
    """Compute standard errors (S, P) by the delta method, and residual deviations (S,)."""
    functions = _LAWS[law]
    left = functions.space(y) - functions.space(functions.curve(x, p))
    # Unbiased: the parameters use up as many observations.
    # At least 1: `MIN_SIZES` asks for one size more than there are parameters.
    freedom = len(x) - p.shape[1]
    sigma = np.sqrt((left**2).sum(1) / freedom)
    covariance = _inverse_information(functions.jacobian(x, p))
    # "spp->sp" takes the diagonals. Rounding can leave a variance of almost 0 negative.
    variance = np.maximum(np.einsum("spp->sp", covariance), 0)
    return np.sqrt(variance) * sigma[:, None], sigma


def _inverse_information(jacobian: Floats) -> Floats:
    """Invert J^T J for every data set, with its columns scaled: they differ by many decades."""
    size = np.sqrt((jacobian**2).sum(1, keepdims=True))
    size = np.where(size > 0, size, 1.0)
    scaled = jacobian / size
    # A pseudo-inverse: near b = 0 the column x^-b is almost constant, as the column of c is, and a
    # plain inverse would raise for the whole batch because of one replicate.
    inverse = np.linalg.pinv(scaled.transpose(0, 2, 1) @ scaled, rcond=1e-13, hermitian=True)
    found: Floats = inverse / (size.transpose(0, 2, 1) @ size)
    return found


def _hold_out(
    x: Floats, y: Floats, law: Law, replicates: int, rng: np.random.Generator
) -> HeldOut:
    """Predict the mean at the largest size from the others; the interval includes seed noise."""
    size = float(x.max())
    at = x == size
    fitted = _bootstrap(x[~at], y[~at], law, replicates, rng)
    functions, target = _LAWS[law], np.array([size])
    centre = functions.space(functions.curve(target, fitted.best[None]))[0, 0]
    guesses = functions.space(functions.curve(target, fitted.replicas))[:, 0]
    seeds = int(at.sum())
    # What was observed is a mean of as many seeds, with noise of its own that no fit can know.
    noise = rng.normal(size=len(guesses)) * fitted.sigma / np.sqrt(seeds)
    own = _prediction_error(fitted, target, fitted.best[None], np.array([fitted.sigma]), seeds)
    each = _prediction_error(fitted, target, fitted.replicas, fitted.replica_sigmas, seeds)
    t = _ratio(guesses - centre - noise, each)
    bounds = _bounds(float(centre), float(own[0]), t)
    value, low, high = (float(functions.back(np.array([v]))[0]) for v in (centre, *bounds))
    # The mean in the space of the residuals: for a power law the geometric mean of the seeds.
    observed = float(functions.back(np.array([functions.space(y[at]).mean()]))[0])
    error = (value - observed) / abs(observed) if observed else float("nan")
    return HeldOut(size, Bounded(value, low, high), observed, error, low <= observed <= high)


def _prediction_error(
    fitted: _Fitted, target: Floats, p: Floats, sigma: Floats, seeds: int
) -> Floats:
    """Compute the standard error (S,) of a prediction minus the mean of so many new seeds."""
    functions = _LAWS[fitted.law]
    covariance = _inverse_information(functions.jacobian(fitted.x, p))
    slope = functions.jacobian(target, p)[:, 0]
    # Textbook prediction variance: sigma^2 (g' (J'J)^-1 g + 1 / m), with g the gradient at the
    # target and m new seeds there.
    variance = np.einsum("sp,spq,sq->s", slope, covariance, slope)
    found: Floats = sigma * np.sqrt(np.maximum(variance, 0) + 1 / seeds)
    return found
