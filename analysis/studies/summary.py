"""What a study found, as its table and its launch show it: the answer first, then the settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from rich.console import Console

from analysis.claims.exploration import explore
from analysis.claims.judged import judge
from analysis.store import artifacts
from analysis.studies.answer import MOST_SENTENCES, answer, counted, ranked
from analysis.tables.render import fitting_table, markdown
from analysis.tables.results import ResultTable, result_table
from analysis.tables.verdicts import verdict_table
from gigatok.claims.words import JudgedClaim, legend

_IN_FULL = "The report and --format markdown say what was claimed, and when."


@dataclass(frozen=True)
class Summary:
    """Answer of a study, and its result table.

    Attributes:
        lead: verdicts on all claims, or what the results show most clearly, with its reserve.
        table: a row per setting.
        runs: the trials that both are made of.
        judged: the claims of which the lead is made; none without claims.
    """

    lead: tuple[str, ...]
    table: ResultTable
    runs: pl.DataFrame
    judged: tuple[JudgedClaim, ...]


def summarise(runs: pl.DataFrame, uri: str, columns: Sequence[str] | None = None) -> Summary:
    """Answer a study's question, and make its table.

    Args:
        runs: what `load_runs` returned, of one sweep.
        uri: the tracking store.
        columns: metrics and config keys of the table; None: the metrics of every result table.

    Raises:
        RequestError: a column is neither a metric nor a config key.
    """
    judged = judge(runs, uri)
    if judged:
        # All of them: who claims something is owed the verdict, however many there are.
        lead = [*(one.sentence for one in judged), legend(judged)]
        metrics = [one.verdict.claim.metric for one in judged]
    else:
        found = answer(runs, uri, found_by_search(runs, uri))
        lead = [found.headline, *found.sentences]
        metrics = [] if found.metric is None else [found.metric]
    table = result_table(runs, columns, metrics)
    return Summary(tuple(lead), table, runs, tuple(judged))


def found_by_search(runs: pl.DataFrame, uri: str) -> dict[str, Any] | None:
    """Read what the search of the newest launch has found; None: nothing yet, or it is none."""
    newest = runs.sort("launched", descending=True)["sweep_run_id"][0]
    content = artifacts.read(uri, newest, "search.json")
    found: dict[str, Any] | None = None if content is None else json.loads(content)
    return found


def markdown_summary(found: Summary) -> str:
    """Write the answer, the table, and every finding of the exploration."""
    lead = "\n".join(f"* {sentence}" for sentence in found.lead)
    rest = "\n".join(f"* {sentence}" for sentence in explore(found.runs).sentences)
    return f"{lead}\n\n{markdown(found.table)}\n{rest}\n"


def print_summary(found: Summary, *, protocols: bool = False) -> None:
    """Print the answer, the table as far as it fits, and its notes; whole protocols on request."""
    console = Console(markup=False, highlight=False)
    if len(found.judged) > MOST_SENTENCES:
        _print_verdicts(found.judged, console)
    else:
        first, *others = found.lead
        console.print(first, style="bold")
        for sentence in others:
            console.print(sentence)
    console.print()
    console.print(found.table.title, style="bold")
    console.print(fitting_table(found.table))
    for note in found.table.notes if protocols else found.table.brief_notes:
        console.print(note, style="dim")


def _print_verdicts(judged: Sequence[JudgedClaim], console: Console) -> None:
    """Print a line for each of many claims; what was claimed would fill the screen."""
    console.print(counted(judged), style="bold")
    console.print(verdict_table(ranked(judged)))
    console.print(f"{legend(judged)} {_IN_FULL}", style="dim")
