"""What a study answers, in two or three sentences: its verdicts, or what it shows most clearly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from analysis.claims.exploration import comparisons
from analysis.claims.findings import SettingComparison
from analysis.claims.judged import judge
from analysis.store.runs import scored
from gigatok.claims.verdicts import Decision
from gigatok.claims.words import JudgedClaim
from gigatok.names import quantity

MOST_SENTENCES = 3
MOST_COMPARED = 500
"""Trials up to which settings are compared: means over the seeds of more take seconds."""
_DECISIONS: tuple[Decision, ...] = ("contradicted", "supported", "undecided")


@dataclass(frozen=True)
class Answer:
    """Answer of a study to its question, so far.

    Attributes:
        headline: the answer in a few words.
        sentences: what it rests on, the clearest first, and with its reserve.
        metric: the result that they are about first; None where they are about none.
    """

    headline: str
    sentences: tuple[str, ...] = ()
    metric: str | None = None


def answer(runs: pl.DataFrame, uri: str, search: Mapping[str, Any] | None = None) -> Answer:
    """Answer a study's question as far as its results allow.

    Args:
        runs: what `load_runs` returned, of one sweep and scale.
        uri: the tracking store, which keeps the claims.
        search: what a search has found (`search.json`); None: the study is none.
    """
    if judged := judge(runs, uri):
        return _of_claims(judged)
    if search is not None:
        return _of_search(search["studies"][0])
    if not scored(runs):
        return Answer("No result yet.")
    if runs.height > MOST_COMPARED:
        return Answer(
            f"{runs.height:,} trials: settings are compared up to {MOST_COMPARED}; the figure "
            "shows each trial."
        )
    return _of_comparisons(comparisons(runs))


def ranked(judged: Sequence[JudgedClaim]) -> list[JudgedClaim]:
    """Order claims by what a reader came for: refuted ones first, undecided ones last."""
    return sorted(judged, key=lambda one: _DECISIONS.index(one.verdict.decision))


def counted(judged: Sequence[JudgedClaim]) -> str:
    """Count the verdicts in a sentence, such as `2 claims: 1 supported, 1 undecided.`."""
    counts = Counter(one.verdict.decision for one in judged)
    each = ", ".join(f"{counts[word]} {word}" for word in _DECISIONS if counts[word])
    return f"{len(judged)} claim{'s' if len(judged) != 1 else ''}: {each}."


def _of_claims(judged: Sequence[JudgedClaim]) -> Answer:
    first = ranked(judged)
    sentences = [one.sentence for one in first[:MOST_SENTENCES]]
    if len(judged) > MOST_SENTENCES:
        sentences.append(f"{len(judged) - MOST_SENTENCES} more claims are in the report.")
    return Answer(counted(judged), tuple(sentences), first[0].verdict.claim.metric)


def _of_comparisons(found: list[SettingComparison]) -> Answer:
    # Those of single seeds have no q: nothing tells them from chance, so they come last.
    best = sorted(found, key=lambda one: 2.0 if one.q is None else one.q)
    compared = [one for one in best if one.difference is not None]
    if not compared:
        return Answer("No two settings that differ in one axis share a result yet.")
    tested = [one for one in compared if one.q is not None]
    shown = sum(" an effect is shown " in one.sentence for one in tested)
    headline, most = f"{shown} of {len(tested)} comparisons show an effect.", MOST_SENTENCES
    if not tested:
        # The sentences repeat the reserve: a third one would add nothing to it.
        headline, most = "One seed for each setting: no effect can be told from chance.", 2
    elif not shown:
        headline = f"No effect is shown by any of {len(tested)} comparisons."
    sentences = tuple(one.sentence for one in compared[:most])
    return Answer(headline, sentences, compared[0].metric)


def _of_search(study: Mapping[str, Any]) -> Answer:
    best, (name, *_) = study["best"], study["objectives"]
    over = sum(trial["state"] != "RUNNING" for trial in study["trials"])
    if not best:
        return Answer(f"No trial of the search is complete yet, of {over}.", metric=name)
    lines = [f"{words_of(one['params'])}: {values_of(one)}." for one in best[:MOST_SENTENCES]]
    trials = f"{over} trials of the sampler {study['sampler']}"
    if len(study["objectives"]) > 1:
        return Answer(f"{len(best)} of {trials} are beaten by no other.", tuple(lines), name)
    note = "The best of many trials looks better than it is: measure it again with other seeds."
    return Answer(f"Best of {trials}: {lines[0]}", (note,), name)


def words_of(params: Mapping[str, object]) -> str:
    """Print the searched keys of a trial with their values."""
    return ", ".join(
        f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in params.items()
    )


def values_of(trial: Mapping[str, Any]) -> str:
    """Print what a trial of a search reached."""
    found = [(quantity(name), value) for name, value in trial["values"].items()]
    return ", ".join(f"{one.title} {one.text(value)}" for one, value in found)
