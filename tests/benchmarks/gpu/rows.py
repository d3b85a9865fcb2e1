"""Findings of the script for a GPU, and the settings that its sections share."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Settings:
    """Settings of all sections.

    Attributes:
        device: `cuda`, or `cpu` to try the script itself.
        quick: the smallest sizes, of which times mean nothing.
        matrix_rate: FLOPs per second of a large bfloat16 product, once it is measured.
    """

    device: str
    quick: bool
    matrix_rate: float | None = None

    def size(self, usual: int, quick: int) -> int:
        """Choose between the usual size of something and its smallest."""
        return quick if self.quick else usual


@dataclass(frozen=True)
class Row:
    """Line of the table.

    Attributes:
        what: what was looked at.
        found: the finding in words, with its unit.
        right: whether it is as it must be; None: it is a measurement, which cannot be wrong.
        note: expectation, or what stands in for something.
        figures: the same for the JSON, in SI units.
    """

    what: str
    found: str
    right: bool | None = None
    note: str = ""
    figures: dict[str, float | None] = field(default_factory=dict)


def speed_row(
    what: str, images: float, unit: str, settings: Settings, flops: float, note: str = ""
) -> Row:
    """Describe a speed in images or tokens a second, and the share of the matrix rate.

    Args:
        what: what was measured.
        images: images or tokens a second.
        unit: of `images`.
        settings: with the matrix rate.
        flops: of one image or token; 0: they are not the point.
        note: further words.
    """
    share = flops * images / settings.matrix_rate if settings.matrix_rate else None
    words = f"{images:,.1f} {unit}"
    if flops and share is not None:
        words += f", MFU {share:.1%}"
    return Row(what, words, note=note, figures={unit: images, "mfu": share if flops else None})
