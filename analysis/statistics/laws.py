"""Laws that a fit may follow: their curves, least-squares fits and derivatives.

The power law is y = a (x / x0)^b, fitted by least squares of log y: its errors are relative. The
saturating one is y = c + a (x / x0)^-b with b > 0, fitted by least squares of y; for every b the
best a and c are a linear regression, so only b is searched for. x0 is the geometric mean of the
sizes. S data sets at once, N sizes, P parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Law = Literal["power", "saturating"]
FORMULAS: dict[Law, str] = {
    "power": "y = a (x / x0)^b",
    "saturating": "y = c + a (x / x0)^-b",
}
MIN_SIZES: dict[Law, int] = {"power": 3, "saturating": 4}
"""Parameters of the law plus one: fewer sizes lie on some curve whatever they are."""
EXPONENTS = (0.01, 4.0)
"""Bounds of a saturating law's b: below, it is a straight line in log x; above, a step."""
# The grid over log b spans 6.0 (from .01 to 4). Each round searches the two steps around the best
# of 121 values, 60 times finer, so that three rounds leave b known to 1.4e-5, relatively.
_GRID = 121
_REFINEMENTS = 3


@dataclass(frozen=True)
class Curve:
    """A curve, its least-squares fit to S data sets at once, and its derivatives."""

    curve: Callable[[Floats, Floats], Floats]
    """(N,) sizes over x0 and (S, P) parameters to (S, N)."""
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

    Sizes are relative to their middle: x^-b of sizes in the millions underflows for large b.
    """
    low = np.full(len(y), np.log(EXPONENTS[0]))
    high = np.full(len(y), np.log(EXPONENTS[1]))
    b = np.zeros(len(y))
    # Variable projection (Golub and Pereyra, SIAM Journal on Numerical Analysis 10(2), 1973): for
    # a given b the curve is linear in a and c, so that only b is searched. A gradient search in
    # all three needs a start and may fail; the bootstrap would have to notice that 1000 times.
    for _ in range(_REFINEMENTS):
        grid = np.exp(low[:, None] + np.linspace(0, 1, _GRID) * (high - low)[:, None])
        best = _squared_error(x, y, grid).argmin(1)
        rows = np.arange(len(y))
        b = grid[rows, best]
        # The minimum lies between the neighbours of the best value of the grid.
        low = np.log(grid[rows, np.maximum(best - 1, 0)])
        high = np.log(grid[rows, np.minimum(best + 1, _GRID - 1)])
    basis = x ** -b[:, None]
    centred = basis - basis.mean(1, keepdims=True)
    a = (centred * y).sum(1) / (centred**2).sum(1)
    return np.stack([a, b, y.mean(1) - a * basis.mean(1)], 1)


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


LAWS: dict[Law, Curve] = {
    "power": Curve(_power_curve, _power_solve, _power_jacobian, np.log, np.exp),
    # `np.positive` gives back what it gets: these residuals are in the units of y.
    "saturating": Curve(
        _saturating_curve, _saturating_solve, _saturating_jacobian, np.positive, np.positive
    ),
}
