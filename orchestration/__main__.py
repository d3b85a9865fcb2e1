"""`python -m orchestration COMMAND`: look at sweeps, steer them, and look after what they left.

Exit codes: 0 done, 1 a stage failed or something did not stop, 2 the request was wrong, 3 refused,
130 interrupted and resumable.
"""

from __future__ import annotations

from gigatok.commands.application import application

app = application(str(__doc__), within="orchestration.commands")


if __name__ == "__main__":
    app()
