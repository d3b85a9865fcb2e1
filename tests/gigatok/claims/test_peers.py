"""Evidence and corrections against statsmodels, on the same numbers.

It is imported in the tests: that takes seconds, which others should not pay for.
"""

from __future__ import annotations

import numpy as np
import pytest

from gigatok.claims.claim import Arm, Claim, Kind
from gigatok.claims.evidence import Results, weigh
from gigatok.claims.verdicts import false_discovery_rates, holm

pytestmark = pytest.mark.heavy
PS = [0.01, 0.04, 0.03, 0.005, 0.5, 0.03, 1.0]
SIZES = (1.0, 2.0, 4.0, 8.0)


def claim(kind: Kind, families: tuple[tuple[Arm, ...], ...], margin: float = 0.0) -> Claim:
    return Claim(name="c", text="", kind=kind, metric="m", margin=margin, families=families)


def family(name: str, sizes: tuple[float, ...] = SIZES) -> tuple[Arm, ...]:
    return tuple(Arm(setting=f"{name}{x:g}", x=x) for x in sizes)


def results(*names: str) -> Results:
    """Three seeds of each size, along a law, with noise."""
    random = np.random.default_rng(len(names))
    return {
        arm.setting: {
            s: float(3 * (arm.x or 0) ** -0.3 + random.normal(0, 0.05)) for s in range(3)
        }
        for name in names
        for arm in family(name)
    }


def means(found: Results) -> np.ndarray:
    return np.array([np.mean(list(seeds.values())) for seeds in found.values()])


@pytest.mark.parametrize(("method", "ours"), [("holm", holm), ("fdr_bh", false_discovery_rates)])
def test_corrections_for_many_claims(method: str, ours: object) -> None:
    from statsmodels.stats.multitest import multipletests

    assert callable(ours)
    assert ours(PS) == pytest.approx(multipletests(PS, method=method)[1].tolist())


@pytest.mark.parametrize("margin", [0.05, 0.3, 0.9])
def test_an_equivalence(margin: float) -> None:
    from statsmodels.stats.weightstats import ttost_paired

    first, second = np.random.default_rng(1).normal(0, 0.3, (2, 6))
    runs = {"S": dict(enumerate(first.tolist())), "L": dict(enumerate(second.tolist()))}
    pair = (Arm(setting="S"), Arm(setting="L"))
    found = weigh(claim("equivalence", (pair,), margin), runs)
    assert found is not None
    assert found.p_for == pytest.approx(ttost_paired(second, first, -margin, margin)[0])


def test_a_trend_over_two_families() -> None:
    """Least squares with an intercept for each family."""
    from statsmodels.regression.linear_model import OLS

    runs = results("a", "b")
    found = weigh(claim("trend", (family("a"), family("b"))), runs)
    assert found is not None
    of_family = np.repeat(np.eye(2), len(SIZES), axis=0)
    peer = OLS(means(runs), np.column_stack([np.tile(np.log2(SIZES), 2), of_family])).fit()
    ours = (found.effect, found.error, found.freedom, found.p)
    assert ours == pytest.approx((peer.params[0], peer.bse[0], peer.df_resid, peer.pvalues[0]))


def test_a_prediction_of_the_largest_size() -> None:
    from statsmodels.regression.linear_model import OLS

    runs = results("a")
    found = weigh(claim("prediction", (family("a"),), 0.05), runs)
    assert found is not None
    columns = np.column_stack([np.ones(len(SIZES)), np.log(SIZES)])
    line = OLS(np.log(means(runs)[:-1]), columns[:-1]).fit()
    peer = line.get_prediction(columns[-1:])
    assert found.effect == pytest.approx(np.log(means(runs)[-1]) - peer.predicted_mean[0])
    assert found.error == pytest.approx(peer.se_obs[0])
    assert found.freedom == line.df_resid
