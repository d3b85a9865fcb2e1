"""What MLflow's UI needs of a study: views, datasets, models, pictures over steps, results."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from gigatok import names
from orchestration.plan.graph import make_plan
from orchestration.runs.state import Store
from orchestration.sweep.definition import Expansion, load_sweep
from orchestration.tracking import views
from orchestration.tracking.shipping import default_uri
from tests.orchestration.tracking.tracking_helpers import Reader, Run, keys_of, plan_of, send

pytestmark = pytest.mark.heavy

TABLES = ("runs", "params", "metrics", "tags", "inputs", "datasets", "logged_models")
MOST_COLUMNS = 60


def counts(store: Store) -> dict[str, int]:
    with closing(sqlite3.connect(store.root / "mlflow.db")) as database:
        queries = {table: f"SELECT count(*) FROM {table}" for table in TABLES}
        return {table: database.execute(query).fetchone()[0] for table, query in queries.items()}


@pytest.fixture
def sent(store, plan):
    """A plan of two trials, both trained, with a picture at two steps."""
    for key, size in zip(keys_of(plan), (12.0, 13.0), strict=True):
        run = Run(store, plan, key).log(range(3))
        run.picture("samples", 1, 1).picture("samples", 2, 200).complete(params_tokenizer=size)
    send(store, plan)
    return store


def view(reader: Reader, plan, kind: str) -> dict:
    """The state that MLflow's UI reads from a view."""
    tags = reader.client.get_experiment_by_name(plan.sweep.name).tags
    envelope = json.loads(tags[views.VIEW_TAG + views.view_id(plan, kind)])
    assert isinstance(envelope["name"], str)
    assert isinstance(envelope["createdAt"], int)
    return json.loads(envelope["state"])


def test_sending_twice_makes_the_same_store(sent, plan):
    before = counts(sent)
    # Without the ledgers nothing is known to be sent: all of it goes to the server again.
    shutil.rmtree(sent.tracking)
    send(sent, plan)
    assert counts(sent) == before
    assert before["logged_models"] == 2


def test_the_view_of_trials_finds_them_in_order_with_few_columns(sent, plan):
    reader = Reader(default_uri(sent))
    state = view(reader, plan, "trials")
    experiment = reader.client.get_experiment_by_name(plan.sweep.name).experiment_id
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    found = reader.client.search_runs([experiment], state["searchFilter"], order_by=[order])
    assert [run.info.run_name for run in found] == [t.trial.name for t in plan.trials]
    columns = state["selectedColumns"]
    assert len(columns) < MOST_COLUMNS
    assert {"params.`tokenizer.decoder`", "metrics.`params_tokenizer`"} <= set(columns)
    kinds = {"params": found[0].data.params, "tags": found[0].data.tags}
    for column in columns:
        kind, _, name = column.partition(".")
        assert kind == "metrics" or name.strip("`") in kinds[kind], column


def test_the_view_of_stages_finds_them(sent, plan):
    reader = Reader(default_uri(sent))
    query = view(reader, plan, "stages")["searchFilter"]
    experiment = reader.client.get_experiment_by_name(plan.sweep.name).experiment_id
    found = reader.client.search_runs([experiment], query)
    assert len(found) == 2
    assert len({run.info.run_name for run in found}) == 2


def test_a_search_shows_what_it_varies_before_it_has_trials():
    sweep = load_sweep("learning_rate", "smoke")
    plan = make_plan(sweep, Expansion((), ()))
    envelope = json.loads(views.experiment_tags(plan, 0.0)[views.VIEW_TAG + "smoke-trials"])
    columns = json.loads(envelope["state"])["selectedColumns"]
    assert {"params.`tokenizer.lr`", "metrics.`psnr`"} < set(columns)


def test_the_link_leads_to_the_view_of_this_store(sent, plan, tmp_path):
    experiment = Reader(default_uri(sent)).client.get_experiment_by_name("study").experiment_id
    link = views.link(sent, default_uri(sent), plan)
    assert link == (
        f"{views.UI_ADDRESS}/#/experiments/{experiment}/runs"
        "?workflowType=machine_learning&viewStateShareKey=smoke-trials"
    )
    assert views.link(sent, default_uri(sent), plan_of(tmp_path, "never_sent")) is None


def test_a_stage_has_params_data_and_its_model(sent, plan):
    reader, key = Reader(default_uri(sent)), keys_of(plan)[1]
    stage = reader.one(names.KIND_STAGE, TAG_STAGE_KEY=key)
    params = stage.data.params
    assert (params["tokenizer.decoder"], params["train.name"]) == ("B", "digits")
    assert not any("micro_batch" in name for name in params)
    (data,) = stage.inputs.dataset_inputs
    assert (data.dataset.name, data.tags[0].value) == ("digits train", "train")
    (output,) = stage.outputs.model_outputs
    model = reader.client.get_logged_model(output.model_id)
    assert (model.model_type, str(model.status)) == ("tokenizer", "READY")
    assert model.source_run_id == stage.info.run_id
    assert {metric.key: metric.value for metric in model.metrics} == {"params_tokenizer": 13.0}
    assert (sent.root / "stages" / model.tags["gigatok.folder"]).is_dir()


def test_a_trial_reads_the_data_of_its_stages(sent, plan):
    trial = Reader(default_uri(sent)).runs(names.KIND_TRIAL)[0]
    assert {one.dataset.name for one in trial.inputs.dataset_inputs} >= {"digits train"}


def test_pictures_are_shown_over_steps(sent, plan):
    reader = Reader(default_uri(sent))
    stage = reader.one(names.KIND_STAGE, TAG_STAGE_KEY=keys_of(plan)[0])
    assert stage.data.tags["mlflow.loggedImages"] == "true"
    shown = [path.removeprefix("images/").split("+") for path in reader.files(stage, "images")]
    assert {(name, step) for name, _, step, *_ in shown} == {("samples", "1"), ("samples", "2")}
    # Of each the whole picture and the small one, which the UI pairs by what is before its end.
    assert sorted(path[-1].partition(".")[2] for path in shown) == ["png", "png", "webp", "webp"]


def test_the_sweep_has_question_and_results(sent, plan):
    reader = Reader(default_uri(sent))
    sweep = reader.one(names.KIND_SWEEP)
    note = sweep.data.tags["mlflow.note.content"]
    assert note.startswith("What does a larger decoder buy?\n")
    table = json.loads(reader.text(sweep, "results.json"))
    place = table["columns"].index("params_tokenizer")
    sizes = {row[0]: row[place] for row in table["data"]}
    assert sizes == {"S-S": 12.0, "S-B": 13.0}
    assert all(f"| {trial.replace('-', chr(92) + '-')} |" in note for trial in sizes)


def test_models_move_along_with_their_store(sent, plan):
    moved = Store(sent.root.rename(sent.root.with_name("moved")))
    send(moved, plan)
    reader = Reader(default_uri(moved))
    stage = reader.one(names.KIND_STAGE, TAG_STAGE_KEY=keys_of(plan)[0])
    model = reader.client.get_logged_model(stage.outputs.model_outputs[0].model_id)
    assert model.artifact_location.startswith(f"{(moved.root / 'mlartifacts').as_uri()}/")
