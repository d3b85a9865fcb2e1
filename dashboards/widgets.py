"""Widgets that several views have: axes, captions, files made when a button is pressed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import streamlit as st

from analysis.charts.grammar import FigureData
from analysis.statistics.groups import short
from analysis.tables.numbers import HALF_WIDTH, Numbers, beside_empty, best_rows
from dashboards.plotting.base import Spec
from gigatok.names import METRICS, PARAM_TOKENIZER, PARAMETERS, quantity
from gigatok.text.markdown import plain

_FIRST = " "
"""Name of the empty column before all others."""
_BEST = "rgba(46, 139, 87, .3)"
ZOOMS = "Ctrl and the wheel look closer, dragging moves, a double click shows all again."
_TYPES = {"pdf": "application/pdf", "csv": "text/csv"}


def choose_axes(
    across: Sequence[str], up: Sequence[str], first: tuple[str, str], prefix: str = ""
) -> tuple[str, str]:
    """Show a list for each axis of a chart, which the address names as well.

    Args:
        across: choices of x.
        up: choices of y.
        first: axes that are chosen at first, where they are among the choices.
        prefix: tells the views' own choices apart.
    """
    chosen = []
    for column, name, keys, key in zip(st.columns(2), "xy", (across, up), first, strict=True):
        chosen.append(
            column.selectbox(
                name,
                keys,
                keys.index(key) if key in keys else 0,
                key=prefix + name,
                format_func=lambda one: quantity(one).heading,
                bind="query-params",
            )
        )
    return chosen[0], chosen[1]


def table(data: Any, **options: Any) -> Any:
    """Show a table; a missing value is a dash, which Streamlit would write as `None`."""
    return st.dataframe(data, hide_index=True, placeholder="—", **options)


def opens_trials(
    numbers: Numbers, key: str, columns: Mapping[str, Any], *, best: bool = False
) -> None:
    """Show a table whose rows open their trials, by a click anywhere.

    Args:
        numbers: `run_id` of a trial, and what is shown of it.
        key: of the widget.
        columns: name -> configuration.
        best: whether the best value of each metric is shaded.
    """
    runs = numbers["run_id"]

    def opened() -> None:
        # A cell and not a row: Streamlit selects a row by its check box alone.
        for row, column in st.session_state[key]["selection"]["cells"]:
            if column != _FIRST:
                open_trial(str(runs[row]))

    # A grid that gets the focus, as by a click on a head, selects its first cell: that one is
    # empty, and opens nothing.
    shown = beside_empty(numbers, _FIRST)
    first = st.column_config.TextColumn("", width=12, pinned=True)
    table(
        _with_best_marked(shown) if best else shown,
        column_config={**columns, _FIRST: first},
        on_select=opened,
        selection_mode="single-cell",
        key=key,
        # Pixels: Streamlit's rows are 35 high; 40 are for the head.
        height=min(460, 40 + 35 * max(1, len(runs))),
    )


def number_columns(table: Numbers) -> dict[str, Any]:
    """Configure the columns of `analysis.tables.numbers`: headings and digits."""
    found: dict[str, Any] = {"trial": st.column_config.TextColumn(pinned=True)}
    for column in table.columns:
        name = column.removeprefix(HALF_WIDTH)
        if name in METRICS:
            label = (
                METRICS[name].heading if name == column else f"{HALF_WIDTH} {METRICS[name].label}"
            )
            # Millions of parameters have no decimals in print, where a small network would be 0.
            digits = METRICS[name].digits if METRICS[name].unit != PARAMETERS else 3
            form = f"%.{digits}f"
            found[column] = st.column_config.NumberColumn(label, format=form)
        elif table[column].dtype.is_numeric():
            # Without a format Streamlit would group the digits of a seed or a width.
            form = "%d" if table[column].dtype.is_integer() else "%.4g"
            found[column] = st.column_config.NumberColumn(short(column), format=form)
        elif column not in found:
            found[column] = st.column_config.TextColumn(
                short(column), pinned=column == PARAM_TOKENIZER
            )
    return found


def _with_best_marked(table: Numbers) -> Any:
    """Shade the best value of each metric."""
    best = {name: best_rows(table, name) for name in table.columns if name in METRICS}
    styled = table.to_pandas().style
    for name, rows in best.items():
        styled = styled.set_properties(subset=(rows, name), **{"background-color": _BEST})
    return styled


def captions(lines: Iterable[str]) -> None:
    """Show notes below each other."""
    # Two blanks before a line break keep it in Markdown.
    st.caption("  \n".join(map(plain, lines)))


def open_trial(run_id: str) -> None:
    """Turn to a trial; only before the widgets are made, so in a callback."""
    # Streamlit refuses to set the state of a widget that exists in the same run.
    st.session_state["trial"] = run_id
    st.session_state["view"] = "Trial"


def pdf_of(data: FigureData) -> bytes:
    """Draw a figure as a PDF."""
    from analysis.charts.files import pdf_bytes  # Matplotlib takes a second, which no page pays

    return pdf_bytes(data)


def picture(figure: Spec, key: str, keeps: Sequence[str] = ()) -> Mapping[str, Any]:
    """Show a chart.

    Args:
        figure: what `dashboards.plotting` makes.
        key: of the chart; what was selected stays while it stays.
        keeps: selections that outlive a redrawn page.

    Returns:
        Those selections: name -> what is selected.
    """
    # Without a theme: Streamlit's own makes the texts of charts pale.
    if not keeps:
        st.vega_lite_chart(figure, theme=None, key=key)
        return {}
    event = st.vega_lite_chart(
        figure, theme=None, key=key, on_select="rerun", selection_mode=list(keeps)
    )
    return dict(event["selection"])


def download(label: str, make: Callable[[], bytes], file: str, *, disabled: bool = False) -> None:
    """Show a button for a file; its suffix says what `make` makes."""
    kind = _TYPES[file.rpartition(".")[2]]
    # A function instead of bytes is called at the press only. "ignore": a download need not run
    # the whole page again.
    st.download_button(label, make, file, kind, on_click="ignore", disabled=disabled)
