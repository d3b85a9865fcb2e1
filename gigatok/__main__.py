"""`python -m gigatok COMMAND`: use a trained tokenizer; get data and networks; write plug-ins.

Exit codes: 0 done, 1 a plug-in breaks promises, 2 the request was wrong, or something cannot be
had, 130 interrupted.
"""

from __future__ import annotations

import typer

from gigatok.commands.assets import app as assets
from gigatok.commands.check import check
from gigatok.commands.decode import decode
from gigatok.commands.encode import encode
from gigatok.commands.new_plugin import new_plugin
from gigatok.commands.score import score

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
app.add_typer(assets, name="assets")
for command in (encode, decode, score, check, new_plugin):
    app.command()(command)


if __name__ == "__main__":
    app()
