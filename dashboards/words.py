"""States, stages and durations as people write them."""

from __future__ import annotations

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def in_words(name: str) -> str:
    """Name a state or stage in words, such as `upstream failed`."""
    return name.lower().replace("_", " ")


def duration(seconds: float | None) -> str:
    """Print a duration, such as `3 min 20 s`; empty for none."""
    if seconds is None:
        return ""
    # Rounded first, or 59.6 s would be printed as 60 s and not as 1 min.
    whole = round(seconds)
    for large, big, small, little in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= large:
            return f"{whole // large} {big} {whole % large // small} {little}"
    return f"{whole} s"
