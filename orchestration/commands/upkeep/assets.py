"""List real data and pretrained networks, and fetch them, by name or all that a sweep reads."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gigatok.data.asset_table import ASSETS, find_asset
from gigatok.data.assets import cache_dir, console, fetch_all, is_here

app = typer.Typer()


@app.callback(invoke_without_command=True)
def assets(context: typer.Context) -> None:
    """List the real data and pretrained networks, and which of them are here."""
    # typer runs the group before each of its commands.
    if context.invoked_subcommand is not None:
        return
    table = Table("asset", "for", "MB", "licence", "state", title=f"cache: {cache_dir()}")
    for name, asset in ASSETS.items():
        state = "here" if is_here(name) else "not fetched"
        table.add_row(name, asset.purpose, str(asset.size_mb), asset.licence, state)
    Console().print(table)


@app.command()
def fetch(
    what: Annotated[
        list[str], typer.Argument(help="Names of assets, or sweeps of which all is fetched.")
    ],
    scale: Annotated[str | None, typer.Option(help="Of the sweeps; default: their own.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key.")
    ] = None,
) -> None:
    """Fetch assets, or everything that sweeps read, for machines without a network."""
    # Imported here: the list of assets needs no sweep.
    from orchestration.study.study import Study

    # First what is named: a sweep that is misspelt does not stop it.
    names = [name for name in what if find_asset(name) is not None]
    try:
        found = fetch_all(names)
        for sweep in what:
            if sweep not in names:
                found |= Study(sweep, scale, overrides=set_ or ()).fetch()
    except (ValueError, OSError) as error:
        console.print(str(error), style="red", soft_wrap=True)
        raise typer.Exit(2) from error
    # On standard output, so that scripts can read where the files are.
    for name, path in found.items():
        typer.echo(f"{name}: {path}")
    if not found:
        typer.echo("nothing to fetch")
