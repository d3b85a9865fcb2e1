"""Plans as they were launched: what `status`, `logs` and later launches know of a sweep."""

from __future__ import annotations

import time
from pathlib import Path

from orchestration.plan import Plan
from orchestration.state import Record, StageFolder, Store, write_atomic


class LaunchedStage(Record):
    """A stage of a launched plan."""

    stage: str
    key: str
    readable: str
    inputs: dict[str, str]


class LaunchedPlan(Record):
    """A plan as it was launched; `trials` maps trial name -> stage -> key."""

    sweep: str
    scale: str
    question: str
    key: str
    launched: float
    tracking_uri: str
    trials: dict[str, dict[str, str]]
    stages: dict[str, LaunchedStage]

    def folders(self, store: Store) -> dict[str, StageFolder]:
        """Key -> folder of every stage."""
        return store.folders((s.stage, key, s.readable) for key, s in self.stages.items())


def record_launch(plan: Plan, store: Store, tracking_uri: str) -> None:
    """Remember a plan at launch, as the newest of its sweep."""
    launched = LaunchedPlan(
        sweep=plan.sweep.name,
        scale=plan.sweep.scale,
        question=plan.sweep.question,
        key=plan.key,
        launched=time.time(),
        tracking_uri=tracking_uri,
        trials={trial.trial.name: dict(trial.stages) for trial in plan.trials},
        stages={
            key: LaunchedStage(
                stage=stage.stage, key=key, readable=stage.readable, inputs=dict(stage.inputs)
            )
            for key, stage in plan.stages.items()
        },
    )
    folder = _folder(store, plan.sweep.name)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{plan.key}.json", launched.model_dump_json())


def newest_launch(store: Store, sweep: str) -> LaunchedPlan:
    """The plan of a sweep that was launched last.

    Raises:
        ValueError: the sweep was never launched into this runs directory.
    """
    files = sorted(_folder(store, sweep).glob("*.json"), key=lambda file: file.stat().st_mtime)
    if not files:
        known = sorted(path.name for path in store.sweeps.glob("*")) or ["none"]
        raise ValueError(
            f"{sweep}: never launched into {store.root} (launched there: {', '.join(known)}); "
            "launch it first, or point --runs-dir at another folder"
        )
    return LaunchedPlan.model_validate_json(files[-1].read_bytes())


def _folder(store: Store, sweep: str) -> Path:
    return store.sweeps / Path(sweep).stem
