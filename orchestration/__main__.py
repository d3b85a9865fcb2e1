"""`python -m orchestration COMMAND`: look at sweeps, steer them, and look after what they left.

Exit codes: 0 done, 1 a stage failed or something did not stop, 2 the request was wrong, 3 refused,
130 interrupted and resumable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestration.cancelling import cancel
from orchestration.cleanup import gc
from orchestration.doctor import doctor
from orchestration.explaining import diff, explain
from orchestration.launch import launch
from orchestration.logs import logs
from orchestration.resuming import resume, retry
from orchestration.simulating import simulate
from orchestration.status import status

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@app.command()
def plan(
    sweep: str,
    scale: str | None = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE")] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show what a launch would run and what it would reuse."""
    launch(sweep, scale, set_, runs_dir=runs_dir, dry_run=True, as_json=as_json)


for command in (status, logs, cancel, resume, retry, simulate, doctor, gc, explain, diff):
    app.command()(command)


if __name__ == "__main__":
    app()
