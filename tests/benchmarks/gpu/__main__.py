"""All that a first minute on a GPU must tell: is it right, and how fast is it?

    python -m tests.benchmarks.gpu --json gpu.json

Needs no network and no data: images are synthetic, and networks whose files are missing have
random weights. Each section runs in a process of its own and has its own time; what fails or takes
too long is reported, and the others go on. The table comes last. Below eight minutes on an H200.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import typer
from rich.console import Console
from rich.table import Table

from tests.benchmarks.gpu import correctness, speed, sweep
from tests.benchmarks.gpu.rows import Row, Settings
from tests.benchmarks.gpu.running import Outcome, Section, run_section
from tests.benchmarks.measuring import machine


class Planned(NamedTuple):
    """Section, and the seconds that it has on a GPU."""

    run: Section
    seconds: float


SECTIONS = {
    "rates": Planned(speed.rates, 30),
    "golden": Planned(correctness.golden, 45),
    "tokens": Planned(correctness.tokens, 30),
    "steps": Planned(correctness.steps, 50),
    "resume": Planned(correctness.resume, 30),
    "features": Planned(correctness.features, 30),
    "waits": Planned(correctness.waits, 30),
    "tokenizers": Planned(speed.tokenizer_training, 180),
    "generators": Planned(speed.generator_training, 90),
    "largest": Planned(speed.largest_tokenizer, 45),
    "sampling": Planned(speed.sampling, 70),
    "graph tokens": Planned(correctness.graph_tokens, 60),
    "graphs": Planned(speed.graphs, 60),
    "codes": Planned(speed.codes, 40),
    "loader": Planned(speed.loader, 30),
    "sweep": Planned(sweep.smoke_sweep, 90),
}
"""Sections in the order in which they run: what is right comes before what is fast."""
WHOLE = 470.0
"""Seconds for all sections together; a section never has more than what is left."""
QUICK_FACTOR = 20
"""How much longer sections may take on a slow CPU."""


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the script itself")] = "cuda",
    quick: Annotated[bool, typer.Option(help="Smallest sizes; times mean nothing.")] = False,
    section: Annotated[list[str] | None, typer.Option(help="Repeatable; default: all.")] = None,
    json_file: Annotated[Path, typer.Option("--json")] = Path("gpu.json"),
) -> None:
    """Run all sections, print the table, write the JSON; exit code 1 if anything is wrong."""
    settings = Settings(check_device(device), quick)
    outcomes = run_sections(section or list(SECTIONS), settings)
    write_json(json_file, outcomes)
    show(outcomes)
    wrong = [o for o in outcomes if o.failure or any(row.right is False for row in o.rows)]
    raise typer.Exit(1 if wrong else 0)


def check_device(device: str) -> str:
    """Hide GPUs if the CPU is asked for; raise `ValueError` if a GPU is and there is none."""
    if device == "cpu":
        # The measurements take a GPU where torch finds one.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        raise ValueError("torch finds no GPU here; --device cpu --quick tries the script itself")
    return device


def run_sections(names: list[str], settings: Settings) -> list[Outcome]:
    """Run sections one after the other, and say on the way how they ended."""
    outcomes: list[Outcome] = []
    end = time.monotonic() + WHOLE * (QUICK_FACTOR if settings.quick else 1)
    for name in names:
        planned = SECTIONS[name]
        limit = planned.seconds * (QUICK_FACTOR if settings.quick else 1)
        left = min(limit, end - time.monotonic())
        if left <= 0:
            outcomes.append(Outcome(name, failure="out of time before it began"))
            continue
        outcome = run_section(name, planned.run, settings, left)
        outcomes.append(outcome)
        print(f"{name}: {outcome.seconds:.0f} s, {len(outcome.rows)} rows", flush=True)
        if outcome.failure:
            print(outcome.failure, flush=True)
        settings = replace(settings, matrix_rate=_matrix_rate(outcome) or settings.matrix_rate)
    return outcomes


def _matrix_rate(outcome: Outcome) -> float | None:
    """Return what `rates` measured in bfloat16, the base of every utilisation."""
    if outcome.name != "rates":
        return None
    found = (r.figures["flops_per_second"] for r in outcome.rows if r.what.endswith(", bf16"))
    return next(found, None)


def write_json(file: Path, outcomes: list[Outcome]) -> None:
    """Write everything, tracebacks included."""
    facts = {"machine": machine(), "torch": torch.__version__, "cuda": torch.version.cuda}
    content = {**facts, "sections": [asdict(outcome) for outcome in outcomes]}
    file.write_text(json.dumps(content, indent=1), encoding="utf-8")


def show(outcomes: list[Outcome]) -> None:
    """Print the table."""
    table = Table(title=f"{machine()}, torch {torch.__version__}")
    for column in ("section", "what", "found", "right", "note"):
        table.add_column(column)
    for outcome in outcomes:
        for row in outcome.rows:
            table.add_row(outcome.name, row.what, row.found, _verdict(row), row.note)
        if outcome.failure:
            last = outcome.failure.strip().splitlines()[-1]
            table.add_row(outcome.name, "the section", "failed", "no", last)
    Console().print(table)


def _verdict(row: Row) -> str:
    if row.right is None:
        return ""
    return "yes" if row.right else "no"


if __name__ == "__main__":
    typer.run(main)
