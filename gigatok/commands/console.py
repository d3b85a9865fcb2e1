"""The program `gigatok`: all commands of all packages."""

from __future__ import annotations

import sys

from gigatok.startup import settle

HELP = """Scaling studies of visual tokenizers: launch sweeps, steer them, read what they found.

Exit codes: 0 done, 1 a stage failed or something did not stop, 2 the request was wrong, 3 refused,
130 interrupted and resumable.
"""


def main() -> None:
    """Run the program, independent of its environment, as `python -m` runs the packages."""
    if not sys.flags.safe_path:
        del sys.path[0]  # folder of this program, where others may have put modules
    settle()
    # Not before: its imports would come from that folder.
    from gigatok.commands.application import application

    application(HELP, completion=True)(prog_name="gigatok")
