"""Claims of a sweep, judged by the results in the tracking store."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import replace

import polars as pl

from analysis.statistics.groups import UNRECORDED
from analysis.store import artifacts
from analysis.store.runs import PROTOCOL
from gigatok.claims.claim import Claim, Looks
from gigatok.claims.evidence import Results
from gigatok.claims.verdicts import verdicts
from gigatok.claims.words import JudgedClaim
from gigatok.names import CLAIMS_FILE, PARAM_SEED, setting_name


def judge(runs: pl.DataFrame, uri: str) -> list[JudgedClaim]:
    """Judge every claim of the sweep that some trials belong to, in the file's order.

    Args:
        runs: what `load_runs` returned, of one sweep and scale.
        uri: the tracking store, which keeps the claims.
    """
    # The newest launch says what is claimed; an older plan may have claimed something else.
    newest = runs.sort("launched", descending=True)["sweep_run_id"]
    content = artifacts.read(uri, newest[0], CLAIMS_FILE) if len(newest) else None
    if content is None:
        return []
    made = json.loads(content)
    claims = [Claim.model_validate(one["claim"]) for one in made]
    looks = None if made[0]["looks"] is None else Looks.model_validate(made[0]["looks"])
    # A claim whose settings were measured in several ways counts, but has no results.
    judged = [c.model_copy(update={"metric": ""}) if _mixes(c, runs) else c for c in claims]
    found = verdicts(judged, {c.metric: _results(runs, c.metric) for c in claims}, looks)
    return [
        JudgedClaim(replace(verdict, claim=claim), one["at"], one["results"])
        for verdict, claim, one in zip(found, claims, made, strict=True)
    ]


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
