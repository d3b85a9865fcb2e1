"""Options of commands, each declared once.

Those of a launch are the described fields of `LaunchRequest`, so that an option is added there and
nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Annotated, Any, Optional, ParamSpec, TypeVar

import typer

from orchestration.commands import completion
from orchestration.launching.launched import LaunchRequest

P = ParamSpec("P")
T = TypeVar("T")

SweepFile = Annotated[
    str,
    typer.Argument(
        help="A sweep's YAML file, or its bare name.", autocompletion=completion.sweep_files
    ),
]
LaunchedSweep = Annotated[
    str,
    typer.Argument(help="A sweep that was launched.", autocompletion=completion.launched_sweeps),
]
# None: all of them.
AnyLaunchedSweep = Annotated[
    str | None,
    typer.Argument(
        help="A sweep that was launched; default: list all.",
        autocompletion=completion.launched_sweeps,
    ),
]
PlannedScale = Annotated[str | None, typer.Option(help="smoke, micro, mini, paper, …")]
LaunchedScale = Annotated[str | None, typer.Option(help="Of the launch; default: the newest.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")]
EveryStage = Annotated[
    bool, typer.Option("--stages", help="Show the cost of every stage, not of every kind.")
]
Watch = Annotated[bool, typer.Option("--watch", help="On a cluster: stay until the sweep ends.")]
NoPatch = Annotated[
    bool, typer.Option("--no-patch", help="Send no patch of uncommitted changes to MLflow.")
]
Yes = Annotated[bool, typer.Option("--yes", help="On a cluster: queue jobs without asking.")]


def launch_options(
    *names: str, as_launched: bool = False
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Give a command options of a launch, in place of its `**options`.

    Args:
        names: fields of `LaunchRequest`; none: all that are options.
        as_launched: what is left out stays as it was launched, whatever the field's default.
    """
    fields = LaunchRequest.model_fields
    chosen = names or [name for name, field in fields.items() if field.description]

    def add(command: Callable[P, T]) -> Callable[P, T]:
        own = signature(command, eval_str=True)
        parameters = own.parameters.values()
        first = [p for p in parameters if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
        last = [p for p in parameters if p.kind is Parameter.KEYWORD_ONLY]
        # In the order of `--help`: what is launched, how, and then what is the command's own.
        whole = [*first, *(_parameter(name, as_launched) for name in chosen), *last]
        # Typer reads the signature, and calls with keywords.
        command.__signature__ = own.replace(parameters=whole)  # type: ignore[attr-defined]
        return command

    return add


def _parameter(name: str, as_launched: bool) -> Parameter:
    field = LaunchRequest.model_fields[name]
    text = str(field.description)
    if as_launched and field.annotation is not bool:
        # What a description says about the default holds for a launch alone.
        text = text.partition("; default: ")[0].removesuffix(".") + "; default: as launched."
    least = next((mark.ge for mark in field.metadata if hasattr(mark, "ge")), None)
    # The name, or a flag would get a second one that means False.
    option = typer.Option(f"--{name.replace('_', '-')}", help=text, min=least)
    default = None if as_launched else field.default
    # None is left out of the request, so that every field may be None here.
    kind: Any = Annotated[Optional[field.annotation], option]  # noqa: UP045 (a type that is a value)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)
