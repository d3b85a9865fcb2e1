"""What the journal says about jobs, after launches that ended well or were killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.backends.detached.journal import CONTROLLER, Journal
from orchestration.runs.state import StageFolder, Store


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(Store(tmp_path), "slurm")


def stages(root: Path, *keys: str) -> list[StageFolder]:
    return [StageFolder.at(root / "stages" / "train_tokenizer" / f"S-B-{key}") for key in keys]


def handles(journal: Journal) -> dict[str, str]:
    return {key: job.handle for key, job in journal.jobs().items()}


def test_elements_have_handles_once_the_scheduler_has_answered(
    tmp_path: Path, journal: Journal
) -> None:
    array = journal.intend("train_tokenizer", "s", "p", stages(tmp_path, "a", "b"), 2)
    assert handles(journal) == {}
    assert [entry.job for entry in Journal(Store(tmp_path)).submissions()] == [None]
    journal.acknowledge(array, "17")
    alone = journal.intend("train_tokenizer", "s", "p", stages(tmp_path, "c"))
    journal.acknowledge(alone, "18")
    assert handles(journal) == {"a": "17_0", "b": "17_1", "c": "18"}
    assert journal.jobs()["a"].folder == stages(tmp_path, "a")[0]


def test_the_newest_job_of_a_stage_counts(tmp_path: Path, journal: Journal) -> None:
    for job, keys in (("17", "ab"), ("18", "b")):
        array = journal.intend("train_tokenizer", "s", "p", stages(tmp_path, *keys))
        journal.acknowledge(array, job)
    assert handles(journal) == {"a": "17_0", "b": "18"}


def test_what_is_complete_or_queued_anew_is_forgotten(tmp_path: Path, journal: Journal) -> None:
    for job, keys in (("17", "ab"), ("18", "b"), ("19", "c"), ("20", "ae")):
        array = journal.intend("train_tokenizer", "s", "p", stages(tmp_path, *keys))
        journal.acknowledge(array, job)
    journal.intend("train_tokenizer", "s", "p", stages(tmp_path, "d"))
    controller = journal.intend(CONTROLLER, "s", "p", stages(tmp_path, "a", "b", "c"))
    journal.acknowledge(controller, "21")
    for folder in stages(tmp_path, "a", "c"):
        folder.path.mkdir(parents=True)
        folder.done_file.write_text("{}")
    journal.prune()
    assert [entry.job for entry in journal.submissions()] == ["18", "20", None, "21"]
    assert [entry.job for entry in journal.controllers("p")] == ["21"]
    assert journal.controllers("another") == []


def test_names_are_unique_and_plain(journal: Journal) -> None:
    names = {journal.intend("train_tokenizer", "it's, a 'sweep'", "p").name for _ in range(20)}
    assert len(names) == 20
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.") for name in names)


def test_each_scheduler_is_told_of_its_own_jobs_alone(tmp_path: Path, journal: Journal) -> None:
    store = Store(tmp_path)
    other = Journal(store, "other")
    for place, job, key in ((journal, "17", "a"), (other, "17", "b")):
        place.acknowledge(place.intend("train_tokenizer", "s", "p", stages(tmp_path, key)), job)
    assert handles(journal) == {"a": "17"}
    assert handles(other) == {"b": "17"}
    everything = Journal(store)
    assert handles(everything) == {"a": "17", "b": "17"}
    parts = {name: handles(part) for name, part in everything.by_backend().items()}
    assert parts == {"slurm": {"a": "17"}, "other": {"b": "17"}}


def test_records_of_versions_that_knew_one_scheduler_are_read(
    tmp_path: Path, journal: Journal
) -> None:
    array = journal.intend("train_tokenizer", "s", "p", stages(tmp_path, "a"))
    (file,) = journal.files()
    known = array.model_copy(update={"job": "17"})
    for older in ({"format"}, {"format", "backend"}):
        file.write_text(known.model_dump_json(exclude=older))
        assert handles(journal) == {"a": "17"}
