"""A stage as one object: everything that anybody asks about it. Imports no torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gigatok.config import Config, TrialConfig
from gigatok.runtime.context import Runtime, Scores
from gigatok.runtime.tracker import Tracker

Condition = Callable[[TrialConfig], bool]
Names = Callable[[TrialConfig], tuple[str, ...]]


@dataclass(frozen=True)
class Disk:
    """Bytes of a stage: `outputs` stay, `working` goes when it is done."""

    outputs: int
    working: int = 0


def _no_closed_form(trial: TrialConfig, world: int) -> int | None:
    return None


@dataclass(frozen=True)
class Costs:
    """Functions of a trial that say what a stage costs.

    Attributes:
        flops: in all. Numpy's work on features (Gaussians, distances), PSNR and SSIM are left out.
        disk: bytes; logs, curves and pictures are left out.
        family: what must agree for the times of two such stages to be comparable.
        memory: peak bytes of tensors per device, given also the number of processes that share
            the stage; None: no closed form is known.
    """

    flops: Callable[[TrialConfig], float]
    disk: Callable[[TrialConfig], Disk]
    family: Names
    memory: Callable[[TrialConfig, int], int | None] = _no_closed_form


# Defaults of `Stage` as functions with names: they show in tracebacks, lambdas do not.
def _always(trial: TrialConfig) -> bool:
    return True


def _none(trial: TrialConfig) -> tuple[str, ...]:
    return ()


def _tokenizer_name(trial: TrialConfig) -> str:
    return trial.tokenizer.name


@dataclass(frozen=True)
class Stage:
    """Kind of job in the graph of a trial.

    Attributes:
        name: in sweeps, folders and records.
        version: raised when the meaning of outputs or a default changes; part of every key.
        config: type of the stage's config: exactly what it reads, since keys hash it.
        read: makes that config from a trial.
        module: dotted name of the module with `run`, imported by the process that runs the stage.
        label: short column head for tables.
        costs: what it costs; None: nobody knows before it has run.
        inputs: stages whose outputs it reads, each with the trials in which it does.
        applies: the trials that can have it at all.
        readable: name by which a person recognises the stage, such as `S-B`; not in its key.
        assets: data and networks that it reads, by their names in `gigatok.data.asset_table`.
        scores: final scores that it reports.
        curves: curves that it logs, such as `train/loss`.
        judges: scores that a gate may ask for -> the training stage that they judge.
        model: section of the trial that describes the model it leaves; None: it leaves none.
        trains: it trains that model, with the settings of that section.
        parallel: several processes share its work; otherwise one does all of it.
    """

    name: str
    version: int
    config: type[Config]
    read: Callable[[TrialConfig], Config]
    module: str
    label: str
    costs: Costs | None = None
    inputs: Mapping[str, Condition] = field(default_factory=dict)
    applies: Condition = _always
    readable: Callable[[TrialConfig], str] = _tokenizer_name
    assets: Names = _none
    scores: Names = _none
    curves: Names = _none
    judges: Mapping[str, str] = field(default_factory=dict)
    model: Literal["tokenizer", "generator"] | None = None
    trains: bool = False
    parallel: bool = False

    def inputs_of(self, trial: TrialConfig) -> tuple[str, ...]:
        """Name the stages whose outputs this one reads in a trial."""
        # A list: a generator is slower here, and plans of thousands of trials call this often.
        return tuple([name for name, reads in self.inputs.items() if reads(trial)])

    def run(
        self,
        config: Config,
        inputs: Mapping[str, Path],
        output_dir: Path,
        tracker: Tracker,
        runtime: Runtime,
    ) -> Scores:
        """Do the work: read the folders of the inputs, leave files in `output_dir`.

        Raises:
            Interrupted: the runtime asked to stop; running it again goes on.
        """
        # Imported here because it imports torch, which planning must not.
        module = importlib.import_module(self.module)
        scores: Scores = module.run(config, inputs, output_dir, tracker, runtime)
        return scores


def where_had(*stages: Stage) -> dict[str, Condition]:
    """Make inputs of stages that are read wherever a trial has them."""
    return {stage.name: stage.applies for stage in stages}
