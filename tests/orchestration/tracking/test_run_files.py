import tempfile
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from orchestration.tracking.run_files import RunFiles


@pytest.fixture(scope="module")
def connection(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    return client, uri, client.create_experiment("e", artifact_location=str(folder / "files"))


def read(client: MlflowClient, run_id: str, path: str) -> bytes:
    return Path(client.download_artifacts(run_id, path)).read_bytes()


@pytest.mark.parametrize("is_noted", [True, False])
def test_files_are_where_mlflow_looks_for_them(connection, is_noted):
    client, uri, experiment = connection
    first, second = (client.create_run(experiment).info for _ in range(2))
    files = RunFiles(client, uri)
    for run in (first, second):
        if is_noted:
            files.note(run.run_id, run.artifact_uri)
        files.write(run.run_id, "spec.json", run.run_id.encode())
        files.write(run.run_id, "attempts/001.json", b"old")
        files.write(run.run_id, "attempts/001.json", b"new")
    for run in (first, second):
        assert read(client, run.run_id, "spec.json") == run.run_id.encode()
        assert read(client, run.run_id, "attempts/001.json") == b"new"
    top = [file.path for file in client.list_artifacts(first.run_id)]
    assert top == ["attempts", "spec.json"]


def test_nothing_is_left_on_disk(connection, tmp_path, monkeypatch):
    client, uri, experiment = connection
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    files = RunFiles(client, uri)
    files.write(client.create_run(experiment).info.run_id, "spec.json", b"x")
    (outbox,) = tmp_path.iterdir()
    assert list(outbox.iterdir()) == []
    del files
    assert list(tmp_path.iterdir()) == []


def test_a_refused_path_leaves_the_next_one_alone(connection):
    client, uri, experiment = connection
    run_id = client.create_run(experiment).info.run_id
    files = RunFiles(client, uri)
    with pytest.raises(MlflowException, match="Invalid artifact path"):
        files.write(run_id, "../outside.json", b"x")
    files.write(run_id, "inside.json", b"x")
    assert [file.path for file in client.list_artifacts(run_id)] == ["inside.json"]
