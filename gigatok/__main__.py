"""`python -m gigatok COMMAND`: what can be done with data and networks apart from a study.

Exit codes: 0 done, 2 the request was wrong, or something cannot be had.
"""

from __future__ import annotations

import typer

from gigatok.commands.assets import app as assets

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


@app.callback()
def main() -> None:
    """Keep the name of the command on the command line, even while it is the only one."""


app.add_typer(assets, name="assets")


if __name__ == "__main__":
    app()
