"""Laws of a study over every size that it varies, in sentences, and why some have none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from analysis.claims.trends import apart, derived_columns, title_of
from analysis.statistics.axes import families_over, place
from analysis.statistics.fits import LawFit, fit_metric
from analysis.statistics.groups import Group, ways
from analysis.statistics.laws import FORMULAS, MIN_SIZES
from analysis.store.requests import RequestError
from gigatok.names import METRICS, PARAM_TOKENIZER, SIZES

FITTED = ("psnr", "lpips", "rkid", "ar_val_loss", "gkid")
"""Results that laws are fitted to."""


@dataclass(frozen=True)
class FittedLaw:
    """Law of a result over a size, in one family of settings.

    Attributes:
        over: column of the size.
        family: what the settings share, in words; empty where there is one family.
        fit: None where none could be made.
        reason: why; else empty.
    """

    metric: str
    over: str
    family: str
    fit: LawFit | None
    reason: str = ""

    @property
    def head(self) -> str:
        """Name the law, such as `PSNR over bits per image (+reg)`."""
        text = f"{METRICS[self.metric].label} over {title_of(self.over)}"
        return f"{text} ({self.family})" if self.family else text


def fitted_laws(found: Sequence[Group]) -> list[FittedLaw]:
    """Fit each result over each size of the study, per family of settings."""
    columns = apart(found, [*derived_columns(found), *SIZES])
    return [law for column in columns for law in _over(found, column)]


def law_sentences(laws: Sequence[FittedLaw]) -> list[str]:
    """Say how many laws were fitted, each of them, and in a line for each reason what was not."""
    fits = [(law, law.fit) for law in laws if law.fit is not None]
    said = []
    if fits:
        said.append(
            f"{len(fits)} fit{'s' if len(fits) > 1 else ''} of {FORMULAS['power']}, x0 the "
            "geometric mean of the sizes. Each interval misses the truth in 5 % of studies; none "
            "is corrected for their number."
        )
    said += [f"{law.head}, {fit.sentence}" for law, fit in fits]
    refused: dict[str, list[str]] = {}
    for law in laws:
        if law.fit is None:
            refused.setdefault(law.reason, []).append(law.head)
    said += [f"Not fitted, {reason}: {', '.join(heads)}." for reason, heads in refused.items()]
    if not laws:
        names = ", ".join(size.metric.label for size in SIZES.values())
        said.append(
            f"No law is fitted: no {MIN_SIZES['power']} settings that differ in nothing else "
            f"differ in a size ({names}, or what the sweep derives)."
        )
    return said


def _over(found: Sequence[Group], column: str) -> Iterator[FittedLaw]:
    for members in families_over(found, column):
        # A law over sizes needs some: a family without them has none to speak of.
        if len({place(group, column) for group in members}) < MIN_SIZES["power"]:
            continue
        name = _family(found, members)
        for metric in FITTED:
            if not any(group.values(metric) for group in members):
                continue
            if (count := len(ways(members, metric))) > 1:
                yield FittedLaw(metric, column, name, None, f"measured in {count} ways")
                continue
            try:
                fit = fit_metric(members, column, metric)
            except RequestError as error:
                yield FittedLaw(metric, column, name, None, str(error))
            else:
                yield FittedLaw(metric, column, name, fit)


def _family(found: Sequence[Group], members: Sequence[Group]) -> str:
    """Name what the settings of a family share and others do not."""
    shared = {
        key: value
        for key, value in members[0].identity.items()
        if all(group.identity[key] == value for group in members)
        and any(group.identity[key] != value for group in found)
    }
    kept = replace(members[0], identity=shared)
    return kept.label if PARAM_TOKENIZER in shared else kept.setting_label
