"""Smoke trials of a plug-in: each thing in the smallest sweep, and its stages interrupted."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from analysis.figures.contract import broken_by_drawing
from analysis.figures.parts.registry import FIGURES
from gigatok.contracts.base import SmokeTrial, smoke_trial
from gigatok.contracts.running import broken_by_running
from gigatok.plugins import Plugin, entries_of
from orchestration.study.smoke import SmokeRun, run_smoke


@dataclass(frozen=True)
class Tried:
    """Result of a smoke trial: how it went in words, and a sentence for each broken promise."""

    words: str
    broken: tuple[str, ...] = ()


@dataclass
class SmokeTrials:
    """Smoke trials of a plug-in, in a folder that they share, so that no stage runs twice."""

    plugin: Plugin
    folder: Path
    _numbers: int = 0
    _repeated: set[str] = field(default_factory=set)
    """Keys of stages that were run again already."""

    def run(self, kind: str, name: str) -> Tried | None:
        """Run the smallest trial with a thing; None: there is none for its kind."""
        started = time.monotonic()
        trial = self._trial_of_figure() if kind == "figure" else smoke_trial(kind, name)
        if trial is None:
            return None
        self._numbers += 1
        # A figure shows the sweeps that it names.
        sweeps = FIGURES[name].sweeps if kind == "figure" else ()
        run = self._launch(sweeps[0] if sweeps else f"check-{self._numbers}", trial)
        broken = [f"smoke trial: {problem}" for problem in run.problems]
        if kind == "figure" and not broken:
            assert run.uri is not None, "a run without problems has a store"
            broken += broken_by_drawing(name, run.uri)
        broken += self._again(run)
        words = f"{len(run.stages)} stages, {time.monotonic() - started:.0f} s"
        words += f", {len(broken)} broken" if broken else ""
        return Tried(words, tuple(broken))

    def _launch(self, sweep: str, trial: SmokeTrial) -> SmokeRun:
        folder = self.folder / f"{self._numbers}"
        folder.mkdir()
        name = self.plugin.name if self.plugin.file is None else str(self.plugin.file)
        return run_smoke(sweep, name, trial, folder, self.folder / "runs")

    def _trial_of_figure(self) -> SmokeTrial:
        """Run all stages of the plug-in, or what most figures show."""
        own = entries_of(self.plugin).get("stage", ())
        return SmokeTrial(stages=own or ("evaluate_generation",))

    def _again(self, run: SmokeRun) -> list[str]:
        """Run every stage that a plug-in has a part in again, whole and interrupted."""
        broken = []
        for one in run.stages:
            if one.own and one.key not in self._repeated:
                self._repeated.add(one.key)
                place = self.folder / "again" / one.key
                found = broken_by_running(one.stage, one.trial, one.config, one.inputs, place)
                broken += [f"stage {one.stage.name}: {text}" for text in found]
        return broken
