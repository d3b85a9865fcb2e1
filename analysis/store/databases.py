"""MLflow's own tables by a few set-based queries; the client needs minutes for the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import adbc_driver_sqlite
import polars as pl
import sqlalchemy as sa
from adbc_driver_manager import AdbcConnection, AdbcStatement
from adbc_driver_manager import Error as AdbcError
from sqlalchemy.exc import SQLAlchemyError

from analysis.store import records
from analysis.store.interface import PARENT_TAG, Stamp, SweepRun
from analysis.store.records import Records, batches, by_key, restored
from analysis.store.requests import RequestError
from gigatok.names import KIND_SWEEP, KIND_TRIAL, TAG_AXES, TAG_KIND
from gigatok.text.command_lines import command

DIALECTS = ("sqlite", "postgresql", "mysql", "mssql")
"""The databases that MLflow keeps runs in."""
BATCH_ROWS = 65_536
"""Rows that the sqlite driver hands over at once."""
# SQL Server takes 2,100 parameters in a query, the fewest of `DIALECTS`.
IDS_PER_QUERY = 2_000
BUSY_MILLISECONDS = 10_000
"""Time that a locked sqlite file is waited for."""
SCAN_FROM = 0.25
"""Share of all runs from which on tables are read whole: each look-up costs about two rows."""
SAMPLE = "1"
"""Run ids below this, a sixteenth as they are random, are counted to know the share."""

DAMAGE = ("not a database", "malformed", "no such table")
"""Words of sqlite that say that the file itself is wrong."""

_ACTIVE = "active"


# Only the columns that are read: those that MLflow's migrations add do not matter.
def _table(name: str, *columns: str) -> sa.TableClause:
    return sa.table(name, *map(sa.column, columns))


_RUNS = _table(
    *("runs", "run_uuid", "start_time", "end_time"),
    *("lifecycle_stage", "experiment_id", "artifact_uri"),
)
_EXPERIMENTS = _table("experiments", "experiment_id", "name", "lifecycle_stage")
_TAGS, _PARAMS = (_table(name, "run_uuid", "key", "value") for name in ("tags", "params"))
_METRICS, _CURVES = (
    _table(name, "run_uuid", "key", "value", "is_nan", "step", "timestamp")
    for name in ("latest_metrics", "metrics")
)


class Database:
    """Any database of MLflow's, through SQLAlchemy."""

    def __init__(self, uri: str) -> None:
        self._engine: sa.Engine = sa.create_engine(uri)

    def sweeps(self) -> list[str]:
        """List the names of the experiments."""
        # MLflow marks what is deleted in its UI, and makes an experiment "Default" in every new
        # store.
        names = sa.select(_EXPERIMENTS.c.name).where(
            _EXPERIMENTS.c.lifecycle_stage == _ACTIVE, _EXPERIMENTS.c.name != "Default"
        )
        return self._read(names, {"name": pl.String()})["name"].to_list()

    def launches(self, sweep: str | None) -> list[SweepRun]:
        """Read the sweep runs of one experiment or of all."""
        axes = sa.select(_TAGS.c.run_uuid).where(_TAGS.c.key == TAG_AXES)  # few: sweep runs only
        chosen = _of_kind(KIND_SWEEP).where(_RUNS.c.run_uuid.in_(axes))
        if sweep is not None:
            chosen = chosen.where(_EXPERIMENTS.c.name == sweep)
        read = (_RUNS.c.run_uuid, _EXPERIMENTS.c.name, _RUNS.c.start_time, _RUNS.c.experiment_id)
        schema = {"run_id": pl.String(), "sweep": pl.String(), "started": pl.Int64()}
        schema["experiment"] = pl.Int64()
        tags, params = (self._by_run(source, chosen) for source in (_TAGS, _PARAMS))
        return [
            SweepRun(run, name, started or 0, tags.get(run, {}), params.get(run, {}), str(within))
            for run, name, started, within in self._read(
                chosen.with_only_columns(*read), schema
            ).iter_rows()
        ]

    def trials(self, launches: Sequence[SweepRun]) -> tuple[Records, Records]:
        """Read the trial runs below some sweep runs, and the stage runs that those link to."""
        # Both ways give the same rows; they differ only in how many look-ups or rows they cost.
        ids = [launch.run_id for launch in launches]
        if self._are_large_part(ids):
            return _chosen(self._records(None), ids)
        parent = _TAGS.alias("parent")
        is_below = sa.and_(parent.c.key == PARENT_TAG, parent.c.value.in_(ids))
        # Tags are rows, so that a second condition on tags needs a second join of the same table.
        below = sa.and_(parent.c.run_uuid == _RUNS.c.run_uuid, is_below)
        trials = self._records(_of_kind(KIND_TRIAL).join(parent, below))
        return trials, self.stages(trials.linked())

    def stages(self, run_ids: pl.Series) -> Records:
        """Read runs of any experiment by id: their times and tags."""
        times = [pl.DataFrame(schema=records.RUN_SCHEMA)]
        tags = [pl.DataFrame(schema=records.TEXT_SCHEMA)]
        for ids in batches(run_ids, IDS_PER_QUERY):
            chosen = sa.select(_RUNS.c.run_uuid).where(_RUNS.c.run_uuid.in_(ids))
            times.append(self._times(chosen))
            tags.append(self._keyed(_TAGS, chosen))
        # Stage runs that were deleted in MLflow's UI are missing here; their trials stay.
        runs = pl.concat(times)
        return Records(runs, by_key(pl.concat(tags), runs), {}, {})

    def _records(self, chosen: sa.Select[Any] | None) -> Records:
        """Read all that is stored of some runs; None: of all."""
        reads = (
            partial(self._keyed, _TAGS, chosen),
            partial(self._keyed, _PARAMS, chosen),
            partial(self._metrics, chosen),
        )
        # Most of the time is the database's own: the tables arrive side by side.
        with ThreadPoolExecutor(1 + len(reads)) as threads:
            times = threads.submit(self._times, chosen)
            parts = list(threads.map(lambda read: by_key(read(), times.result()), reads))
        return Records(times.result(), *parts)

    def _are_large_part(self, launches: Sequence[str]) -> bool:
        """Tell whether reading tables whole is faster than looking up the runs of launches."""
        # Run ids are random hex, so those below SAMPLE are a fair sixteenth of all.
        below = sa.select(sa.func.count()).where(
            _TAGS.c.key == PARENT_TAG, _TAGS.c.value.in_(launches), _TAGS.c.run_uuid < SAMPLE
        )
        # Both counts are over the same sample, so that their ratio needs no correction.
        everything = sa.select(sa.func.count()).select_from(_RUNS).where(_RUNS.c.run_uuid < SAMPLE)
        schema = {"runs": pl.Int64()}
        part, total = (self._read(query, schema).item() for query in (below, everything))
        return bool(part >= SCAN_FROM * total)

    def curves(self, run_ids: Sequence[str], metric: str | None = None) -> pl.DataFrame:
        """Read every logged point of one or all metrics."""
        c = _CURVES.c
        points = sa.select(c.run_uuid, c.key, c.value, c.step, c.timestamp, c.is_nan)
        if metric is not None:
            points = points.where(c.key == metric)
        parts = [
            self._numbers(points.where(c.run_uuid.in_(ids)), records.CURVE_SCHEMA)
            for ids in batches(run_ids, IDS_PER_QUERY)
        ]
        return pl.concat([pl.DataFrame(schema=records.CURVE_SCHEMA), *parts])

    def artifact_root(self, run_id: str) -> str | None:
        """Read the URI of a run's files from its row; None where there is no such run."""
        where = sa.select(_RUNS.c.artifact_uri).where(_RUNS.c.run_uuid == run_id)
        found = self._read(where, {"uri": pl.String()})["uri"]
        return found[0] if len(found) else None

    def stamp(self) -> Stamp | None:
        """Return None: a database server does not say when it changed."""
        return None

    def _times(self, chosen: sa.Select[Any] | None) -> pl.DataFrame:
        c = _RUNS.c
        times = sa.select(c.run_uuid, c.start_time, c.end_time).where(c.lifecycle_stage == _ACTIVE)
        return self._read(_of_runs(times, c.run_uuid, chosen), records.RUN_SCHEMA)

    def _keyed(self, source: sa.TableClause, chosen: sa.Select[Any] | None) -> pl.DataFrame:
        c = source.c
        # MLflow's schema allows a tag without value; it says no more than no tag.
        rows = sa.select(c.run_uuid, c.key, c.value).where(c.value.is_not(None))
        return self._read(_of_runs(rows, c.run_uuid, chosen), records.TEXT_SCHEMA)

    def _by_run(self, source: sa.TableClause, chosen: sa.Select[Any]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for run, key, value in self._keyed(source, chosen).iter_rows():
            found.setdefault(run, {})[key] = value
        return found

    def _metrics(self, chosen: sa.Select[Any] | None) -> pl.DataFrame:
        c = _METRICS.c
        rows = _of_runs(sa.select(c.run_uuid, c.key, c.value, c.is_nan), c.run_uuid, chosen)
        return self._numbers(rows, records.METRIC_SCHEMA)

    def _numbers(self, query: sa.Select[Any], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        """Read a query that ends with `is_nan`; NaN and infinity have no place in SQL."""
        found = self._read(query, {**schema, "is_nan": pl.Boolean()})
        value = restored(pl.col("value"), pl.col("is_nan"))
        return found.with_columns(value=value).drop("is_nan")

    def _read(self, query: sa.Select[Any], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        try:
            with self._engine.connect() as connection:
                # All rows are looked at: a column that begins with nulls would get the wrong type.
                found = pl.read_database(query, connection, infer_schema_length=None)
        except SQLAlchemyError as error:
            # The URL holds the login, which must not reach a message.
            where = self._engine.url.render_as_string(hide_password=True)
            raise _unreadable(where, error.__cause__ or error) from error
        return _typed(found, schema)


class SqliteFile(Database):
    """A sqlite file, opened read-only through the Arrow driver: no row passes through Python."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"sqlite:///{path}")
        self._path = path

    def stamp(self) -> Stamp | None:
        """Combine the file's change counter with size and time of it and of its log."""
        with self._path.open("rb") as file:
            # Bytes 24 to 27 of the header: sqlite raises them with every change (SQLite's file
            # format, "File change counter").
            counter = file.read(28)[24:].hex()
        # With a write-ahead log a change need not touch the file itself until a checkpoint.
        log = self._path.with_name(self._path.name + "-wal")
        facts = [p.stat() for p in (self._path, log) if p.exists()]
        # The inode tells a file that was put in the place of another with the same counter.
        times = [(fact.st_ino, fact.st_size, fact.st_mtime_ns) for fact in facts]
        return str(self._path.resolve()), f"{counter} {times}"

    def _read(self, query: sa.Select[Any], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        # The Arrow driver takes a text, not the bound parameters of SQLAlchemy.
        compiled = query.compile(self._engine, compile_kwargs={"literal_binds": True})
        with self._statement() as statement:
            statement.set_options(**{"adbc.sqlite.query.batch_rows": str(BATCH_ROWS)})
            statement.set_sql_query(str(compiled))
            stream, _ = statement.execute_query()
            return _typed(pl.DataFrame(stream), schema)

    @contextmanager
    def _statement(self) -> Iterator[AdbcStatement]:
        """Open a statement of the driver's interface: its DB-API would import pandas."""
        # Nothing is written but what a killed launch left to roll back: sqlite does not read a
        # database with such a journal read-only. A file that cannot be written is only read.
        address = f"file:{quote(str(self._path.resolve()))}?mode=rw"
        try:
            with (
                adbc_driver_sqlite.connect(address) as database,
                AdbcConnection(database) as connection,
                AdbcStatement(connection) as statement,
            ):
                # The launcher holds the file for moments while it writes.
                statement.set_sql_query(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
                statement.execute_update()
                yield statement
        except AdbcError as error:
            raise _unreadable(self._path, error) from error


def _unreadable(where: object, error: BaseException) -> RequestError:
    """Say which database fails and why, without the query, and how to get on."""
    # What sqlite says stands behind "query: " in the first line of the driver's error.
    reason = str(error).partition("\n")[0].rpartition("query: ")[2]
    message = f"{where} cannot be read as an MLflow database: {reason}"
    if any(words in reason for words in DAMAGE):
        again = command("orchestration", "sync", "--rebuild", "--runs-dir", "DIR")
        message += (
            f"; nothing is lost: `{again}` sets the "
            "file aside and makes it again from the runs directory"
        )
    return RequestError(message)


def _chosen(everything: Records, launches: Sequence[str]) -> tuple[Records, Records]:
    """Select the trials below some sweep runs and the stages that they link to."""
    value = pl.col("value")
    # A launch that has just begun has no trial, so that no run may have a parent.
    kinds, parents = (everything.tags.get(key, records.NO_TEXTS) for key in (TAG_KIND, PARENT_TAG))
    trials = kinds.filter(value == KIND_TRIAL)
    below = parents.filter(value.is_in(launches))
    found = everything.of(trials.join(below, "run", "semi")["run"])
    # Stages shared by several trials are linked several times and kept once.
    linked = found.linked().to_frame("run_id")
    rows = everything.runs.with_row_index("run").join(linked, "run_id", "semi")["run"]
    return found, Records(everything.runs, everything.tags, {}, {}).of(rows)


def _of_kind(kind: str) -> sa.Select[Any]:
    """Query the ids of the active runs of one kind in active experiments."""
    is_of_kind = sa.and_(_TAGS.c.key == TAG_KIND, _TAGS.c.value == kind)
    return (
        sa.select(_RUNS.c.run_uuid)
        .join(_EXPERIMENTS, _EXPERIMENTS.c.experiment_id == _RUNS.c.experiment_id)
        .join(_TAGS, sa.and_(_TAGS.c.run_uuid == _RUNS.c.run_uuid, is_of_kind))
        .where(_EXPERIMENTS.c.lifecycle_stage == _ACTIVE, _RUNS.c.lifecycle_stage == _ACTIVE)
    )


def _of_runs(
    rows: sa.Select[Any], run: sa.ColumnElement[str], chosen: sa.Select[Any] | None
) -> sa.Select[Any]:
    """Restrict a query to the rows of some runs; None: of all."""
    return rows if chosen is None else rows.where(run.in_(chosen))


def _typed(found: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Give columns their names and types; an empty result comes with neither."""
    # By position: every query selects its columns in the order of its schema.
    named = found.rename(dict(zip(found.columns, schema, strict=True)))
    return named.select(pl.col(name).cast(kind) for name, kind in schema.items())
