"""Scaling laws with intervals: how a metric changes with size, and what the fit does not know.

Seeds of a size are averaged first. They share that size's distance from the law, so counting
them singly would take one misfit for as many independent ones, and intervals would hold the truth
much less often than they say. Intervals are bootstrap-t: each replicate draws every size anew
around the fitted curve, is fitted again, and its error is divided by its own standard error, as
few points need (Efron and Tibshirani 1993, chapter 12.5). S replicates, N sizes, P parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import stdtr

from analysis.statistics.groups import Group, require_one_way
from analysis.statistics.laws import EXPONENTS, FORMULAS, LAWS, MIN_SIZES, Floats, Law
from analysis.store.requests import RequestError
from gigatok.claims.evidence import ROUNDING

Status = Literal["converged", "bound hit", "undetermined"]
USELESS = 10.0
"""Factor over the measured sizes; a power law whose change is known no better tells nothing."""
ONE_SEED = "one seed per size: nothing tells a law from chance; run two seeds or more"
REPLICATES = 1000
CONFIDENCE = 0.95


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
        predicted: with the interval for the mean over seeds at that size.
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
        status: `bound hit` where the exponent ran into `EXPONENTS`: then it is not measured;
            `undetermined` where the interval of a power law's b is too wide to say anything.
        reference: x0, the size at which a power law has the value a: where a is known best.
        sizes: the distinct sizes, ascending.
        observations: number of values, seeds counted singly.
        residual: standard deviation of the sizes' means around the curve: relative for the power
            law, else in units of y.
        bend: two-sided p of a curve in what a power law says is a line, its logarithms; None with
            fewer than four sizes, and of the other law.
        held_out: None where fewer sizes would remain than a fit needs.
        sentence: all of it in words.
    """

    law: Law
    parameters: dict[str, Bounded]
    status: Status
    reference: float
    sizes: tuple[float, ...]
    observations: int
    residual: float
    bend: float | None
    held_out: HeldOut | None

    def predict(self, sizes: Sequence[float] | Floats) -> Floats:
        """Evaluate the curve at some sizes."""
        # The dict keeps the order a, b, c, which is that of the columns that `curve` takes.
        values = np.array([p.value for p in self.parameters.values()])
        x = np.asarray(sizes, float) / self.reference
        found: Floats = LAWS[self.law].curve(x, values[None])[0]
        return found

    @property
    def sentence(self) -> str:
        """Say all of it in words."""
        parts = [
            f"{name} = {p.value:.3g} [{p.low:.3g}, {p.high:.3g}]"
            for name, p in self.parameters.items()
        ]
        b = self.parameters["b"]
        if self.status == "undetermined":
            return (
                f"{FORMULAS[self.law]}: not determined; b lies between {b.low:.3g} and "
                f"{b.high:.3g}, so these {len(self.sizes)} sizes do not say how y changes."
            )
        text = f"{FORMULAS[self.law]}: {', '.join(parts)}, x0 = {self.reference:.3g} (95 % "
        text += f"bootstrap interval; {len(self.sizes)} sizes, {self.observations} values)."
        # A saturating b is positive by its bounds, so its interval cannot show that there is no
        # trend.
        if self.law == "power" and b.low <= 0 <= b.high:
            text += " b may be 0: no trend is shown."
        if self.bend is not None and self.bend < 1 - CONFIDENCE:
            text += f" The sizes bend away from the law (p = {self.bend:.2g}): it does not hold."
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
    """Fit a law to observations; those of equal sizes are seeds, which are averaged.

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
    found, means = _means(x, y, law)
    # Around the middle of the sizes a and b are known independently of each other; at x = 1, some
    # decades away, a would have an interval of many decades.
    reference = float(np.exp(np.log(found).mean()))
    relative = found / reference
    # A fixed seed: the same trials always give the same sentence.
    rng = np.random.default_rng(seed)
    fitted = _bootstrap(relative, means, law, replicates, rng)
    # The largest size is held out because extrapolation is what a scaling law is for.
    held = None
    if hold_out and len(found) > MIN_SIZES[law]:
        held = _hold_out(relative, means, law, replicates, rng)
        held = replace(held, size=float(found[-1]))
    # The power law has no c.
    parameters = dict(zip("abc", fitted.intervals(fitted.best), strict=False))
    status = _status(fitted, parameters["b"], float(found[-1] / found[0]))
    sizes_found = tuple(map(float, found))
    bend = _bend(relative, means) if law == "power" else None
    return LawFit(
        law, parameters, status, reference, sizes_found, len(x), fitted.sigma, bend, held
    )


def fit_metric(found: Sequence[Group], size: str, metric: str, law: Law = "power") -> LawFit:
    """Fit a metric over a size, all seeds of all settings.

    Raises:
        RequestError: too few sizes, one seed each, or values measured under several protocols.
    """
    require_one_way(found, metric, "fit")
    # Settings of one size would pass for its seeds.
    if found and all(len(group.values(metric)) < 2 for group in found):
        raise RequestError(ONE_SEED)
    pairs = [
        (sizes[seed], value)
        for group in found
        for sizes in [group.values(size)]
        for seed, value in group.values(metric).items()
        if seed in sizes
    ]
    return fit_seeds(pairs, law)


def fit_seeds(pairs: Sequence[tuple[float, float]], law: Law = "power") -> LawFit:
    """Fit a law to pairs of size and value of single runs.

    Raises:
        RequestError: as for `fit_power_law`, or no size has two seeds.
    """
    sizes = [size for size, _ in pairs]
    # First the number of sizes, which more seeds would not mend.
    if len(set(sizes)) >= MIN_SIZES[law] and len(set(sizes)) == len(sizes):
        raise RequestError(ONE_SEED)
    return fit_power_law(sizes, [value for _, value in pairs], law=law)


def _means(x: Floats, y: Floats, law: Law) -> tuple[Floats, Floats]:
    """Average the seeds of each size, where residuals are taken: sizes ascending, and means."""
    functions = LAWS[law]
    sizes, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    sums = np.bincount(inverse, functions.space(y))
    return sizes, functions.back(sums / counts)


def _bend(x: Floats, y: Floats) -> float | None:
    """Test for a curve in the logarithms of sizes and means: p of the square's coefficient."""
    # The held-out size alone hardly tells: a bend also widens the interval of the prediction.
    freedom = len(x) - 3
    if freedom < 1:
        return None
    columns = np.log(x)[:, None] ** np.arange(3)
    coefficients, left, *_ = np.linalg.lstsq(columns, np.log(y), rcond=None)
    variance = float(left[0]) / freedom * np.linalg.inv(columns.T @ columns)[2, 2]
    # Values that lie on the law exactly leave nothing but rounding, which has no bend.
    if variance < np.finfo(float).eps ** 2:
        return 1.0
    return float(2 * stdtr(freedom, -abs(coefficients[2]) / np.sqrt(variance)))


def _status(fitted: _Fitted, b: Bounded, ratio: float) -> Status:
    """Tell whether the exponent is known, over sizes whose largest is `ratio` times the least."""
    if fitted.at_bound:
        return "bound hit"
    # Between the ends of the interval of b the change over the sizes differs by this factor.
    # A saturating law's b is bounded by itself and judged by `EXPONENTS`.
    known = fitted.law != "power" or (b.high - b.low) * np.log(ratio) <= np.log(USELESS)
    return "converged" if known else "undetermined"


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
    exact: bool
    """True if the values lie on the law but for rounding, of which no statistics can be made."""

    @property
    def at_bound(self) -> bool:
        low, high = EXPONENTS
        # The ends of the grid are the bounds only up to the rounding of exp(log(bound)).
        return self.law == "saturating" and not low * 1.001 < self.best[1] < high * 0.999

    def intervals(self, best: Floats) -> list[Bounded]:
        """Compute bootstrap-t intervals; that of a power law's a in log a, which is symmetric."""
        if self.exact:
            return [Bounded(*[float(value)] * 3) for value in best]
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
    best = LAWS[law].solve(x, y[None])
    error, sigma = _errors(x, y[None], best, law)
    # Resampling observations, the usual bootstrap, fails with so few sizes.
    # Parametric: of 3 points drawn with replacement, 7 in 9 samples have fewer than 3 sizes.
    noise = rng.normal(size=(replicates, len(x))) * sigma[0]
    centre = LAWS[law].space(LAWS[law].curve(x, best))
    drawn = LAWS[law].back(centre + noise)
    replicas = LAWS[law].solve(x, drawn)
    # Bootstrap-t needs the standard error of every replicate, not only that of the data.
    errors, sigmas = _errors(x, drawn, replicas, law)
    scale = 1.0 if law == "power" else float(np.abs(y).max())
    exact = bool(sigma[0] <= ROUNDING * scale)
    return _Fitted(law, best[0], error[0], replicas, errors, float(sigma[0]), sigmas, x, exact)


def _errors(x: Floats, y: Floats, p: Floats, law: Law) -> tuple[Floats, Floats]:
    """Compute standard errors (S, P) by the delta method, and residual deviations (S,)."""
    functions = LAWS[law]
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
    """Predict the mean at the largest size, the last, from the others."""
    fitted = _bootstrap(x[:-1], y[:-1], law, replicates, rng)
    functions, target = LAWS[law], x[-1:]
    centre = functions.space(functions.curve(target, fitted.best[None]))[0, 0]
    guesses = functions.space(functions.curve(target, fitted.replicas))[:, 0]
    # What was observed lies off the law by itself, as every size does: no fit can know that.
    noise = rng.normal(size=len(guesses)) * fitted.sigma
    own = _prediction_error(fitted, target, fitted.best[None], np.array([fitted.sigma]))
    each = _prediction_error(fitted, target, fitted.replicas, fitted.replica_sigmas)
    t = _ratio(guesses - centre - noise, each)
    bounds = _bounds(float(centre), float(own[0]), t)
    if fitted.exact:
        bounds = centre - ROUNDING, centre + ROUNDING
    value, low, high = (float(functions.back(np.array([v]))[0]) for v in (centre, *bounds))
    observed = float(y[-1])
    error = (value - observed) / abs(observed) if observed else float("nan")
    covered = low <= observed <= high
    return HeldOut(float(x[-1]), Bounded(value, low, high), observed, error, covered)


def _prediction_error(fitted: _Fitted, target: Floats, p: Floats, sigma: Floats) -> Floats:
    """Compute the standard error (S,) of a prediction minus what is measured at the target."""
    functions = LAWS[fitted.law]
    covariance = _inverse_information(functions.jacobian(fitted.x, p))
    slope = functions.jacobian(target, p)[:, 0]
    # Textbook prediction variance: sigma^2 (g' (J'J)^-1 g + 1), with g the gradient at the target.
    variance = np.einsum("sp,spq,sq->s", slope, covariance, slope)
    found: Floats = sigma * np.sqrt(np.maximum(variance, 0) + 1)
    return found
