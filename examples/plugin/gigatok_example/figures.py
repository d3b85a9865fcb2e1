"""A figure: brightness over the size of the tokenizer."""

from analysis.figures.runs import Panel, RunFigure, declare

declare(
    RunFigure(
        name="brightness",
        title="Are reconstructions of ternary codes as bright as their originals?",
        sweeps=("ternary",),
        panels=(Panel(x="params_tokenizer", y="brightness"),),
        needs="brightness",
    )
)
