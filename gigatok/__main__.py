"""`python -m gigatok COMMAND`: use a trained tokenizer on your own images.

Exit codes: 0 done, 2 the request was wrong, 130 interrupted.
"""

from __future__ import annotations

import typer

from gigatok.commands.decode import decode
from gigatok.commands.encode import encode
from gigatok.commands.score import score

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
for command in (encode, decode, score):
    app.command()(command)

if __name__ == "__main__":
    app()
