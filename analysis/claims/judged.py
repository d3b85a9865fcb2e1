"""Claims of a sweep, judged by the results in the tracking store."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from analysis.statistics.groups import UNRECORDED
from analysis.store import artifacts
from analysis.store.requests import RequestError
from analysis.store.runs import PROTOCOL
from gigatok.claims.claim import Claim, Claimed, parse_claimed
from gigatok.claims.evidence import Results
from gigatok.claims.verdicts import verdicts
from gigatok.claims.words import JudgedClaim
from gigatok.names import CLAIMS_FILE, PARAM_SEED, setting_name
from gigatok.text.command_lines import command


def judge(runs: pl.DataFrame, uri: str) -> list[JudgedClaim]:
    """Judge every claim of the sweep that some trials belong to, in the file's order.

    Args:
        runs: what `load_runs` returned, of one sweep and scale.
        uri: the tracking store, which keeps the claims.

    Raises:
        RequestError: the store's record of the claims is damaged.
    """
    # The newest launch says what is claimed; an older plan may have claimed something else.
    newest = runs.sort("launched", descending=True).head(1)
    made = [one for row in newest.iter_rows(named=True) for one in _claimed(row, uri)]
    claims = [one.claim for one in made]
    # All of a sweep are looked at alike.
    looks = made[0].looks if made else None
    # A claim whose settings were measured in several ways counts, but has no results.
    judged = [c.model_copy(update={"metric": ""}) if _mixes(c, runs) else c for c in claims]
    found = verdicts(judged, {c.metric: _results(runs, c.metric) for c in claims}, looks)
    return [
        JudgedClaim(replace(verdict, claim=one.claim), one.at, one.results, one.prediction)
        for verdict, one in zip(found, made, strict=True)
    ]


def _claimed(row: Mapping[str, Any], uri: str) -> tuple[Claimed, ...]:
    """Read what was claimed in the launch that a trial belongs to."""
    content = artifacts.read(uri, row["sweep_run_id"], CLAIMS_FILE)
    if content is None:
        return ()
    try:
        return parse_claimed(content, f"{CLAIMS_FILE} of MLflow run {row['sweep_run_id']}")
    except ValueError as error:
        again = command("orchestration", "sync", row["sweep"])
        raise RequestError(f"{error}; {again} writes it anew") from error


def _mixes(claim: Claim, runs: pl.DataFrame) -> bool:
    """Tell whether settings that a claim compares were measured in more than one way.

    Families may differ: the loss of a token is compared at equal tokens only, in each of them.
    """
    if claim.metric not in runs.columns:
        return False
    ways: dict[str, set[str]] = defaultdict(set)
    known = runs.filter(pl.col(claim.metric).is_not_null())
    for trial, way in known.select("trial", PROTOCOL + claim.metric).iter_rows():
        ways[setting_name(trial)].add(way or UNRECORDED)
    families = (set.union(*(ways[arm.setting] for arm in f)) for f in claim.families)
    return any(len(family) > 1 for family in families)


def _results(runs: pl.DataFrame, metric: str) -> Results:
    """Collect a metric's finite values by setting and seed."""
    if metric not in runs.columns:
        return {}
    known = runs.filter(pl.col(metric).is_not_null())
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for trial, seed, value in known.select("trial", PARAM_SEED, metric).iter_rows():
        if math.isfinite(value) and seed is not None:
            found[setting_name(trial)][seed] = value
    return found
