"""Views of a study in MLflow's UI: it opens on runs, and shows trials with chosen columns.

MLflow keeps views as tags of the experiment. A link with the id of a view applies its filter,
order and columns; the menu "Views" lists them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from gigatok import names
from gigatok.stages import STAGES
from gigatok.text import markdown
from orchestration.plan.graph import Plan
from orchestration.runs.state import Store
from orchestration.tracking.ledger import Ledgers, parse_uri
from orchestration.tracking.params import trial_params

KIND_TAG, NOTE_TAG = "mlflow.experimentKind", "mlflow.note.content"
VIEW_TAG = "mlflow.sharedViewState."
ORDER_TAG = "mlflow.gigatok.order"
"""Place of a trial in its plan. The UI shows no tag that begins with `mlflow.`."""
UI_ADDRESS = "http://127.0.0.1:5000"
"""Address at which `mlflow ui` listens unless told otherwise."""

_EXPLANATION = (
    "The run of a launch holds a run for each trial and each stage. Its params are the settings "
    "that all trials share. A **trial** has as params what sets it apart, and all final scores. "
    "A **stage** has what it reads as params, and its curves, "
    "pictures and logs; trials share stages. The menu *Views* shows trials or stages alone."
)


def experiment_tags(plan: Plan, launched: float) -> dict[str, str]:
    """Make the tags by which MLflow's UI opens an experiment on its runs, and explains them.

    Args:
        plan: the newest of the experiment; each scale has views of its own.
        launched: UNIX seconds of its launch.
    """
    sweep = plan.sweep
    note = "\n\n".join([markdown.for_mlflow(sweep.question), _EXPLANATION, units_table()])
    # Versions of the UI without modes in the address go by this tag.
    tags = {KIND_TAG: "custom_model_development", NOTE_TAG: note}
    trials = _kind(plan, names.KIND_TRIAL)
    stages = _kind(plan, names.KIND_STAGE)
    for kind, query, order, columns in (
        ("trials", trials, ORDER_TAG, [*_params(plan), *_scores(plan), _tag(names.TAG_STATE)]),
        ("stages", stages, names.TAG_STAGE, [_tag(names.TAG_STAGE), _tag(names.TAG_STATE)]),
    ):
        title = f"{sweep.name} {sweep.scale}: {kind}"
        view = _view(title, query, order, columns, int(launched * 1000))
        tags[VIEW_TAG + view_id(plan, kind)] = view
    return tags


def view_id(plan: Plan, kind: str = "trials") -> str:
    """Name the view of the trials, or stages, of a plan's scale."""
    return f"{plan.sweep.scale}-{kind}"


def link(store: Store, uri: str, plan: Plan) -> str | None:
    """Make the address of the trials of a plan in MLflow's UI; None: nothing was sent yet."""
    destination = parse_uri(uri)
    known = Ledgers(store.tracking, destination).plan(plan.key)
    if known is None or known.sweep.experiment is None:
        return None
    server = UI_ADDRESS if destination.database else destination.uri
    view = f"{names.MLFLOW_MODE}&viewStateShareKey={view_id(plan)}"
    return f"{server}/#/experiments/{known.sweep.experiment}/runs?{view}"


def units_table() -> str:
    """Write a Markdown table of scores and units, which MLflow has no field for."""
    rows = [
        f"| `{metric.name}` | {metric.label} | {metric.unit} | {metric.better or ''} |"
        for metric in names.METRICS.values()
    ]
    return "\n".join(["| score | meaning | unit | better |", "|---|---|---|---|", *rows])


def _view(title: str, query: str, order: str, columns: Iterable[str], created: int) -> str:
    state: Mapping[str, Any] = {
        "searchFilter": query,
        # By a tag: sorted by time, the UI would hide trials and stages below the launch's run.
        "orderByKey": _tag(order),
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": list(columns),
    }
    envelope = {"name": title, "createdAt": created, "state": json.dumps(state)}
    return json.dumps(envelope)


def _kind(plan: Plan, kind: str) -> str:
    scope = {names.TAG_KIND: kind, names.TAG_SCALE: plan.sweep.scale}
    # Stages carry the plan that first built them, so these are found by their scale.
    if kind == names.KIND_TRIAL:
        scope[names.TAG_PLAN] = plan.key
    return " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in scope.items())


def _params(plan: Plan) -> list[str]:
    """List the columns of what varies between the trials of a plan."""
    if not plan.trials:  # of a search, which has not asked for any yet
        return [f"params.`{key}`" for key in plan.sweep.varied]
    first = plan.trials[0].trial
    known = trial_params(first.config)
    keys: list[str] = []
    for axis in (*plan.sweep.varied, names.PARAM_SEED):
        # A size without a letter is logged as several params.
        parts = [key for key in known if key.startswith(f"{axis}.")]
        keys += [axis] if axis in known or not parts else parts
    keys += [names.PREFIX_DERIVED + name for name in first.derived]
    return [f"params.`{key}`" for key in dict.fromkeys(keys)]


def _scores(plan: Plan) -> list[str]:
    """List the columns of the scores that result tables show, as far as a trial reports them."""
    if not plan.trials:
        search = plan.sweep.search
        return [f"metrics.`{name}`" for name in (search.objectives if search else ())]
    first = plan.trials[0]
    scores = (name for stage in first.stages for name in STAGES[stage].scores(first.trial.config))
    # Those that follow from others are sent as well.
    reported = names.with_computed(dict.fromkeys(scores, 0.0))
    return [f"metrics.`{name}`" for name in names.result_columns() if name in reported]


def _tag(name: str) -> str:
    return f"tags.`{name}`"
