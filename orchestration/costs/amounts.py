"""Amounts as people read them: FLOPs, bytes and seconds; a missing one is an en dash."""

from __future__ import annotations

MISSING = "–"  # never 0, which would be a claim


def flops_text(flops: float | None) -> str:
    """Format FLOPs, such as `1.3 PFLOP`."""
    if flops is None:
        return MISSING
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if flops >= size:
            return f"{_short(flops / size)} {unit}FLOP"
    return f"{_short(flops / 1e6)} MFLOP"


def bytes_text(count: float | None) -> str:
    """Format bytes, such as `1.3 GiB`."""
    if count is None:
        return MISSING
    for unit, power in (("TiB", 40), ("GiB", 30)):
        if count >= 2**power:
            return f"{_short(count / 2**power)} {unit}"
    return f"{_short(count / 2**20)} MiB"


def seconds_text(seconds: float | None) -> str:
    """Format seconds with the two digits that a prediction has: `4.2 s`, `6 min` or `31 h`."""
    if seconds is None:
        return MISSING
    # A unit begins where its number is worth reading: 99 s, 100 s as 2 min, and days from three.
    for unit, size in (("d", 86400 * 3), ("h", 5400), ("min", 100)):
        if seconds >= size:
            return f"{_short(seconds / {'d': 86400, 'h': 3600, 'min': 60}[unit])} {unit}"
    return f"{_short(seconds)} s"


def hours_text(hours: float | None) -> str:
    """Format hours, such as `0.25` or `10,880`."""
    if hours is None:
        return MISSING
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"


def _short(value: float) -> str:
    # Two digits at least: as exact as a prediction is.
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.2g}"
