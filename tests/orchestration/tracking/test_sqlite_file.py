"""Files of tracking stores: a new one is a copy of an empty one in the cache."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from orchestration.tracking.sqlite_file import artifact_place, create

pytestmark = pytest.mark.heavy  # the schema is MLflow's


class Schema:
    """MLflow's schema, and how often it was asked for."""

    def __init__(self, database: Path) -> None:
        self.database, self.asked = database, 0

    def make(self, uri: str) -> None:
        self.asked += 1
        shutil.copy(self.database, uri.removeprefix("sqlite:///"))


def test_a_version_of_mlflow_makes_its_schema_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path
) -> None:
    monkeypatch.setenv("GIGATOK_CACHE", str(tmp_path / "cache"))
    schema = Schema(empty_database)
    for run, version, asked in ((0, "3.1", 1), (1, "3.1", 1), (2, "3.2", 2)):
        file = tmp_path / str(run) / "mlflow.db"
        file.parent.mkdir()
        create(file, version, schema.make)
        assert schema.asked == asked
        with closing(sqlite3.connect(file)) as database:
            stored = database.execute("SELECT name, artifact_location FROM experiments")
            assert stored.fetchall() == [("Default", artifact_place(file, "Default"))]


def test_a_cache_that_cannot_be_written_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path
) -> None:
    (tmp_path / "cache").write_text("no folder")
    monkeypatch.setenv("GIGATOK_CACHE", str(tmp_path / "cache"))
    schema = Schema(empty_database)
    for name in ("a.db", "b.db"):
        create(tmp_path / name, "3.1", schema.make)
        assert (tmp_path / name).stat().st_size == empty_database.stat().st_size
    assert schema.asked == 2
