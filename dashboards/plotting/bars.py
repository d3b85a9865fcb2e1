"""Bars: how many stages are in which state, and how often codes are used."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.studies.study import WatchedStudy, stage_counts
from dashboards.plotting.base import Spec, framed, of, rows
from dashboards.plotting.symbols import IF_SHOWN, shown
from dashboards.words import in_words

# In the order in which the bars stack: what is done from the left, what failed to the right.
STATE_COLOURS = {
    "COMPLETE": "#2E8B57",
    "RUNNING": "#0072B2",
    "WAITING": "#BDBDBD",
    "FAILED": "#C62828",
    "UPSTREAM_FAILED": "#E69F00",
    "PRUNED": "#9C8AA5",
}
_ON_BAR = {"RUNNING": "#FFFFFF", "FAILED": "#FFFFFF"}
"""Colours of the counts inside bars; black on all others, where it is easier to read."""
_LETTER = 0.025
"""Part of the longest bar that a digit takes on a phone."""


def states_figure(study: WatchedStudy) -> Spec:
    """Draw a bar for each stage: how many of it are in which state."""
    counts = list(stage_counts(study).iter_rows())
    order = {state: place for place, state in enumerate(STATE_COLOURS)}
    totals: dict[str, int] = {}
    for stage, _, count in counts:
        totals[stage] = totals.get(stage, 0) + count
    longest = max(totals.values(), default=1)
    found = [
        {
            "stage": in_words(stage),
            "series": in_words(state),
            "count": count,
            "rank": order[state],
            "c": _ON_BAR.get(state, "#000000"),
            # A count that its bar has no room for is told by hovering.
            "text": f"{count:,}" if count / longest > _LETTER * len(f"{count:,}") else "",
            "said": {"title": in_words(stage), in_words(state): f"{count:,}"},
        }
        for stage, state, count in counts
    ]
    states = [state for state in STATE_COLOURS if any(of == state for _, of, _ in counts)]
    content = {
        "data": rows(found),
        "transform": [IF_SHOWN],
        "encoding": _stacked([in_words(stage) for stage in study.stages]),
        "layer": [_state_bars(states), _counts()],
    }
    # Streamlit would send data at the top by itself, later than the chart.
    return framed({"layer": [content]}, 110 + 30 * len(study.stages))


def _stacked(stages: Sequence[str]) -> Spec:
    # No halves on the axis of a small study.
    axis = {"tickMinStep": 1, "tickCount": 8, "format": ",d"}
    return {
        "y": {
            "field": "stage",
            "type": "nominal",
            "sort": list(stages),
            "title": None,
            "axis": {"labelLimit": 220, "labelOverlap": False},
        },
        "x": {
            "field": "count",
            "type": "quantitative",
            "stack": "zero",
            "title": "distinct stages",
            "scale": {"nice": False},
            "axis": axis,
        },
        "order": {"field": "rank", "type": "quantitative"},
    }


def _state_bars(states: Sequence[str]) -> Spec:
    names = [in_words(state) for state in states]
    scale = {"domain": names, "range": [STATE_COLOURS[state] for state in states]}
    look: Spec = {"orient": "top", "title": None, "symbolType": "square", "symbolSize": 160}
    # As many columns as a page of this width has room for.
    look |= {"columns": {"expr": "max(1, floor(width / 130))"}}
    colour = {"field": "series", "type": "nominal", "scale": scale, "legend": look}
    return {
        "params": [shown(names)],
        "mark": {"type": "bar", "height": {"band": 0.8}, "tooltip": of("said")},
        "encoding": {"fill": colour},
    }


def _counts() -> Spec:
    """Write the number into the middle of each bar."""
    return {
        "mark": {"type": "text", "fontSize": 12, "fill": of("c"), "tooltip": of("said")},
        "encoding": {
            "x": {"field": "count", "stack": "zero", "bandPosition": 0.5, "type": "quantitative"},
            "detail": {"field": "series"},
            "text": {"field": "text"},
        },
    }


def uses_figure(uses: Sequence[str], codes: Sequence[int]) -> Spec:
    """Draw the histogram of codebook usage."""
    times, count = "times used on the validation images", "codes"
    found = [
        {"uses": use, "codes": n, "said": {times: use, count: f"{n:,}"}}
        for use, n in zip(uses, codes, strict=True)
    ]
    content = {
        "data": rows(found),
        "mark": {"type": "bar", "color": "#009E73", "tooltip": of("said")},
        "encoding": {
            "x": {
                "field": "uses",
                "type": "ordinal",
                "sort": None,
                "title": times,
                "axis": {"labelAngle": 0},
            },
            "y": {"field": "codes", "type": "quantitative", "title": count},
        },
    }
    return framed({"layer": [content]}, 260)
