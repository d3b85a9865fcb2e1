"""Reading a tracking server, page by page, through the MLflow client."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.store import records
from analysis.store.interface import PARENT_TAG, Stamp, SweepRun
from analysis.store.records import Records, batches, by_key, restored
from gigatok.names import KIND_SWEEP, KIND_TRIAL, TAG_KIND
from gigatok.text.credentials import mlflow_variables, without_login

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PAGE = 1000
"""Runs per request; the client's own default, small enough for slow servers."""
RUNS_PER_FILTER = 200
"""Run ids in one filter of a request."""


def connect(uri: str) -> MlflowClient:
    """Open MLflow's client; the login goes by the environment, not inside the URL.

    The client repeats the URL in its errors.
    """
    from mlflow import MlflowClient  # takes seconds; databases never pay

    os.environ.update(mlflow_variables(uri))
    plain = without_login(uri) if uri.startswith(("http://", "https://")) else uri
    return MlflowClient(tracking_uri=plain)


class ClientStore:
    """Paged searches through `MlflowClient`: for tracking servers."""

    def __init__(self, uri: str) -> None:
        self._client: MlflowClient = connect(uri)

    def sweeps(self) -> list[str]:
        """List the names of the experiments."""
        return [name for name in self._experiments().values() if name != "Default"]

    def launches(self, sweep: str | None) -> list[SweepRun]:
        """Search the sweep runs of one experiment or of all."""
        names = self._experiments()
        wanted = [key for key, name in names.items() if sweep in (None, name)]
        runs = self._search(wanted, f"tags.`{TAG_KIND}` = '{KIND_SWEEP}'")
        return [
            SweepRun(
                i.run_id,
                names[i.experiment_id],
                i.start_time or 0,
                d.tags,
                d.params,
                i.experiment_id,
            )
            for run in runs
            for i, d in [(run.info, run.data)]
        ]

    def trials(self, launches: Sequence[SweepRun]) -> tuple[Records, Records]:
        """Search the trial runs below some sweep runs, and the stage runs that those link to.

        One search a launch, as MLflow filters lack OR.
        """
        ids = {name: key for key, name in self._experiments().items()}
        kind = f"tags.`{TAG_KIND}` = '{KIND_TRIAL}'"
        trials = _records(
            run
            for launch in launches
            for run in self._search(
                [ids[launch.sweep]], f"{kind} AND tags.`{PARENT_TAG}` = '{launch.run_id}'"
            )
        )
        return trials, self.stages(trials.linked())

    def stages(self, run_ids: pl.Series) -> Records:
        """Search runs of any experiment by id: their times and tags."""
        everywhere = list(self._experiments())
        # The server puts all ids of a filter into one query of its database, which limits them.
        lists = [", ".join(map(repr, ids)) for ids in batches(run_ids, RUNS_PER_FILTER)]
        return _records(
            run
            for ids in lists
            for run in self._search(everywhere, f"attributes.run_id IN ({ids})")
        )

    def curves(self, run_ids: Sequence[str], metric: str | None = None) -> pl.DataFrame:
        """Read every logged point of one or all metrics, one request for each run and metric."""
        wanted = [
            (run, key)
            for run in run_ids
            for key in ([metric] if metric else self._client.get_run(run).data.metrics)
        ]
        rows = [
            (run, key, m.value, m.step, m.timestamp)
            for run, key in wanted
            for m in self._client.get_metric_history(run, key)
        ]
        # The server decodes NaN itself, but hands infinity out as it is stored, the largest float.
        points = pl.DataFrame(rows, records.CURVE_SCHEMA, orient="row")
        return points.with_columns(value=restored(pl.col("value"), False))

    def artifact_root(self, run_id: str) -> str | None:
        """Read the URI of a run's files from the run."""
        return str(self._client.get_run(run_id).info.artifact_uri)

    def stamp(self) -> Stamp | None:
        """Return None: a server does not say when it changed."""
        return None

    def _experiments(self) -> dict[str, str]:
        # Both searches return active experiments and runs only, by the client's default.
        return {e.experiment_id: e.name for e in _pages(self._client.search_experiments)}

    def _search(self, experiments: Sequence[str], text: str) -> Iterator[Run]:
        if not experiments:
            return
        search = self._client.search_runs
        yield from _pages(search, experiment_ids=experiments, filter_string=text)


def _pages(search: Any, **arguments: object) -> Iterator[Any]:
    token = None
    while True:
        page = search(max_results=PAGE, page_token=token, **arguments)
        yield from page
        # An empty page may still have a token; only its absence ends the list.
        token = page.token
        if not token:
            return


def _records(runs: Iterator[Run]) -> Records:
    found = list(runs)
    times = [(run.info.run_id, run.info.start_time, run.info.end_time) for run in found]
    table = pl.DataFrame(times, records.RUN_SCHEMA, orient="row")

    def stored(part: str, schema: Any) -> pl.DataFrame:
        rows = [
            (run.info.run_id, key, value)
            for run in found
            for key, value in getattr(run.data, part).items()
        ]
        return pl.DataFrame(rows, schema, orient="row")

    tags, params = (stored(part, records.TEXT_SCHEMA) for part in ("tags", "params"))
    metrics = stored("metrics", records.METRIC_SCHEMA)
    metrics = metrics.with_columns(value=restored(pl.col("value"), False))
    return Records(table, *(by_key(values, table) for values in (tags, params, metrics)))
