"""Comparisons, interactions and trends of planted studies, and their error rate on noise."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import polars as pl
import pytest

from analysis import explore
from analysis.claims.exploration import MOST_SENTENCES
from analysis.claims.fitted import fitted_laws, law_sentences
from analysis.statistics.groups import groups
from analysis.store.runs import with_sizes
from analysis.tables.findings import findings_table
from gigatok.names import METRICS

CODES, TOKENS, WEIGHTS = (16, 64), (4, 8), (0.0, 0.5)
Value = Callable[[int, int, float, int], float]


def study(psnr: Value, seeds: int = 2) -> pl.DataFrame:
    """A 2×2×2 as the store returns it, with its bits derived and computed."""
    cells = [*product(CODES, TOKENS, WEIGHTS, range(seeds))]
    bits = [tokens * int(np.log2(codes)) for codes, tokens, _, _ in cells]
    count = len(cells)
    names = [f"{c} {t} {w} seed={s}" for c, t, w, s in cells]
    params = pl.DataFrame(
        {
            "run_id": names,
            "trial": names,
            "sweep": ["planted"] * count,
            "scale": ["smoke"] * count,
            "question": [""] * count,
            "plan": ["p"] * count,
            "axes": [["codes", "latents", "tokenizer.semantic_weight"]] * count,
            "tokenizer": ["S-S"] * count,
            "codes": [c for c, _, _, _ in cells],
            "latents": [t for _, t, _, _ in cells],
            "tokenizer.semantic_weight": [w for _, _, w, _ in cells],
            "seed": [s for _, _, _, s in cells],
            "derived.bits": bits,
            "computed.bits_per_image": bits,
        }
    )
    blank = {name: pl.Series([None] * count, dtype=pl.Float64) for name in METRICS}
    scores = pl.DataFrame(blank | {"psnr": [psnr(*cell) for cell in cells]})
    protocols = {f"protocol.{name}": [None] * count for name in METRICS}
    return with_sizes(params.hstack(scores)).with_columns(
        **{name: pl.Series(v, dtype=pl.String) for name, v in protocols.items()}
    )


def noise(seed: int) -> float:
    return 0.01 * (-1) ** seed


def test_settings_are_compared_along_every_axis() -> None:
    found = explore(study(lambda c, t, w, s: t + noise(s) * c / 16 + 0.02 * s * w))
    # Four pairs along each of three axes.
    assert len(found.comparisons) == 12
    assert sum("latents=4" in c.first and "latents=8" in c.second for c in found.comparisons) == 4
    # What changes, and where; what all settings share is said once.
    changes = {c.change for c in found.comparisons}
    assert "codes 16 → 64 at latents=4 +reg" in changes
    assert "semantic_weight 0 → 0.5 at codes=16 latents=8" in changes
    assert found.sentences[0].startswith("Exploration of S-S, nothing of it claimed")
    assert not any("S-S" in sentence for sentence in found.sentences[1:])


def test_an_interaction_is_the_change_of_an_effect() -> None:
    """Codes help by 1 dB, and by 3 dB more where the image is regularised."""

    def psnr(codes: int, tokens: int, weight: float, seed: int) -> float:
        helps = 1.0 + (3.0 if weight else 0.0)
        return (helps + noise(seed) * tokens) * (codes == 64) + seed

    found = {(i.first, i.second): i for i in explore(study(psnr, seeds=3)).interactions}
    assert len(found) == 3
    planted = found["codes 16 → 64", "semantic_weight 0 → 0.5"]
    assert planted.difference.differences == pytest.approx((3.0, 3.0, 3.0))
    assert planted.families == 2, "averaged over the numbers of tokens"
    other = found["latents 4 → 8", "semantic_weight 0 → 0.5"]
    assert set(other.difference.differences) == {0.0}, "rounding is no interaction"
    assert "No interaction." in other.sentence


def test_a_clear_interaction_is_shown_with_its_interval() -> None:
    def psnr(codes: int, tokens: int, weight: float, seed: int) -> float:
        both = 3.0 + 0.02 * seed if codes == 64 and tokens == 8 else 0.0
        return both + 0.001 * seed * weight

    found = explore(study(psnr, seeds=4)).interactions
    (shown,) = [i for i in found if i.is_shown]
    assert shown.first == "codes 16 → 64"
    assert "An interaction is shown (q = " in shown.sentence
    # Differences 3, 3.02, 3.04, 3.06: s.d. .0258, t = 3.182, half of it .041.
    assert "mean +3.030 [+2.989, +3.071]" in shown.sentence


def test_a_trend_is_over_what_the_sweep_derives() -> None:
    """Bits are set by two axes; families differ in the third alone, and shift the line."""

    def psnr(codes: int, tokens: int, weight: float, seed: int) -> float:
        return 2.0 * np.log2(tokens * np.log2(codes)) - 5.0 * weight + noise(seed) + 0.01 * tokens

    (trend,) = explore(study(psnr)).trends
    assert trend.over == "derived.bits", "bits of an image and of a pixel are the same trend"
    assert (trend.settings, trend.families) == (8, 2)
    assert trend.slope == pytest.approx(2.0, abs=0.1)
    assert "PSNR over bits: +2.0" in trend.sentence
    assert "per doubling" in trend.sentence
    assert "Higher (better): a trend is shown" in trend.sentence


def test_of_quantities_that_order_settings_alike_one_is_tested() -> None:
    """A generator's parameters follow from its codebook: the same trend a second time."""
    runs = study(lambda codes, tokens, weight, seed: tokens * np.log2(codes) + noise(seed))
    follows = runs.with_columns(**{"derived.parameters": 1000 + pl.col("derived.bits") ** 1.5})
    assert [trend.over for trend in explore(follows).trends] == ["derived.bits"]
    against = runs.with_columns(**{"derived.spare": 100 - pl.col("derived.bits")})
    assert [trend.over for trend in explore(against).trends] == ["derived.bits"]


def test_laws_are_over_bits_in_each_family() -> None:
    def psnr(codes: int, tokens: int, weight: float, seed: int) -> float:
        return float((tokens * np.log2(codes)) ** 0.5) * (1 + weight) * (1 + 0.01 * noise(seed))

    laws = fitted_laws(groups(study(psnr)))
    assert [law.head for law in laws] == ["PSNR over bits", "PSNR over bits (+reg)"]
    assert [law.fit.parameters["b"].value for law in laws if law.fit] == pytest.approx([0.5, 0.5])
    assert law_sentences(laws)[0].startswith("2 fits of y = a (x / x0)^b")


def test_one_seed_says_nothing_of_trends_and_laws() -> None:
    runs = study(lambda c, t, w, s: float(c * t), seeds=1)
    found = explore(runs)
    assert found.trends == ()
    assert "from one seed each: none can be tested" in found.sentences[0]
    (sentence,) = law_sentences(fitted_laws(groups(runs)))
    assert sentence.startswith("Not fitted, one seed per size")


def test_of_many_findings_only_those_that_are_shown_have_a_sentence() -> None:
    runs = study(lambda c, t, w, s: (5.0 + 0.01 * s) * (t == 8) + noise(s) * c / 16 * w, seeds=3)
    other = runs["psnr"].to_numpy()
    runs = runs.with_columns(
        pl.Series(name, other * (-1) ** runs["seed"].to_numpy())
        for name in ("lpips", "rfid", "rkid", "gfid", "gkid")
    )
    found = explore(runs)
    assert len(found.findings) > MOST_SENTENCES
    shown = [one for one in found.findings if one.is_shown]
    assert shown
    assert len(found.sentences) == 1 + len(shown)
    assert f"{len(shown)} shown" in found.sentences[0]
    rows = findings_table(runs, found).rows
    assert len(rows) == len(found.findings), "the table has all"
    assert {row[0] for row in rows} == {"comparison", "interaction", "trend"}


def test_of_noise_few_studies_show_anything() -> None:
    """Of nothing but chance every finding is false: 5 % of studies may have one."""
    rng = np.random.default_rng(0)
    runs = study(lambda c, t, w, s: 0.0, seeds=3)
    wrong = 0
    for _ in range(60):
        drawn = runs.with_columns(psnr=pl.Series(rng.normal(size=runs.height)))
        wrong += any(one.is_shown for one in explore(drawn).findings)
    # 5 % of 60 is 3, with a standard deviation of 1.7.
    assert wrong <= 8


def test_equal_steps_of_a_coarse_score_are_not_certain() -> None:
    """Two seeds that both gain one image of 64 differ equally, which is no proof."""
    found = explore(study(lambda c, t, w, s: 1 / 64 * (t == 8)))
    along = [c for c in found.comparisons if c.difference and c.difference.mean]
    assert along
    assert all(c.p == 0.5 and not c.is_shown for c in along)
