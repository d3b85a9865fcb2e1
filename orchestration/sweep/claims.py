"""Claims of a sweep: sentences about its results, read before any of them exists.

A sentence is found by its form, of which there are five; then the settings that it is about are
looked up among the trials, so that what is recorded can be tested without the sweep's file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from gigatok.claims.claim import Arm, Claim, Kind
from gigatok.names import METRICS, setting_name
from orchestration.sweep.formulas.expressions import ExpressionError
from orchestration.sweep.formulas.formulas import Formula, read_formula
from orchestration.sweep.grid.expansion import Trial
from orchestration.sweep.grid.stage_graph import StageGraphs, stage_graphs
from orchestration.sweep.settings.keys import SEED
from orchestration.yaml.parts import Part
from orchestration.yaml.source import did_you_mean, listed, scalar, show

PREDICTED_WITHIN = 0.05
"""Relative error within which a prediction holds, unless the claim gives another."""
_LEAST = r"(?: by at least (?P<margin>\S+))?"
_SECOND = r"(?P<metric>\S+) at (?P<key>[^=\s]+) ?= ?(?P<second>.+?)"
# Tried in this order; the first that fits the whole sentence is meant.
_FORMS: Mapping[Kind, tuple[str, str]] = {
    "trend": (
        "psnr rises with params.decoder",
        rf"(?P<metric>\S+) (?P<way>rises|falls) with (?P<over>.+?){_LEAST}",
    ),
    "order": (
        "psnr rises over tokenizer.decoder",
        rf"(?P<metric>\S+) (?P<way>rises|falls) over (?P<key>\S+?){_LEAST}",
    ),
    "difference": (
        "ar_val_loss at tokenizer.semantic_weight=0.5 is lower than at 0 by at least 0.1",
        rf"{_SECOND} is (?P<way>higher|lower) than at (?P<first>.+?){_LEAST}",
    ),
    "equivalence": (
        "probe_accuracy at tokenizer.decoder=L is within 0.01 of B",
        rf"{_SECOND} is within (?P<margin>\S+) of (?P<first>.+)",
    ),
    "prediction": (
        "ar_val_loss of the largest params.tokenizer is predicted by the smaller ones",
        r"(?P<metric>\S+) of the largest (?P<over>.+?) is predicted by the smaller ones"
        r"(?: within (?P<margin>\S+?) ?%)?",
    ),
}
"""Form of each kind of claim: an example, and its pattern."""


@dataclass(frozen=True)
class Sentence:
    """Claim as it is written, taken apart.

    Attributes:
        words: parts of its form by name: `metric`, `way`, `key`, `first`, `second`, `over`.
        over: quantity of a trend or a prediction.
        where: condition that its settings meet; None: all do.
        together: groups of keys that vary together.
    """

    part: Part
    kind: Kind
    words: Mapping[str, str | None]
    margin: float
    over: Formula | None
    where: Formula | None
    together: tuple[frozenset[str], ...]

    @property
    def name(self) -> str:
        """Key of the claim in the file."""
        return self.part.key.rpartition(".")[2]

    @property
    def text(self) -> str:
        """The claim in the file's words."""
        return self.part.text()


def read_claims(
    part: Part,
    derived: Mapping[str, Formula],
    trials: Sequence[Trial],
    stages: Sequence[str],
    together: Sequence[Iterable[str]],
) -> tuple[Claim, ...]:
    """Read the claims of a sweep, and find the settings that each is about.

    Args:
        part: `claims` of the file, a mapping of names to sentences.
        derived: names of `derive`.
        trials: of the sweep.
        stages: that it asks for.
        together: groups of keys that vary together (`zip`).
    """
    example = "; write `decoder_helps: psnr rises with params.decoder`"
    sentences = (_sentence(item, derived, together) for item in part.mapping(example).values())
    graphs = stage_graphs(stages)
    found = [_claim(one, trials, graphs) for one in sentences if one is not None]
    return tuple(claim for claim in found if claim is not None)


# From text to a sentence


def _sentence(
    part: Part, derived: Mapping[str, Formula], together: Sequence[Iterable[str]]
) -> Sentence | None:
    text, _, condition = part.text().partition(" where ")
    forms = ((kind, re.fullmatch(pattern, text.strip())) for kind, (_, pattern) in _FORMS.items())
    fitting = [(kind, match) for kind, match in forms if match]
    if not fitting:
        examples = "; ".join(f"`{example}`" for example, _ in _FORMS.values())
        part.report_wrong(f"a claim of one of these forms, or with ` where …` behind: {examples}")
        return None
    kind, match = fitting[0]
    words, before = match.groupdict(), len(part.problems)
    _check_metric(part, str(words["metric"]))
    margin = _margin(part, kind, words.get("margin"))
    over = _formula(part, words.get("over"), derived)
    where = _formula(part, condition.strip() or None, derived)
    if len(part.problems) > before:
        return None
    return Sentence(part, kind, words, margin, over, where, tuple(map(frozenset, together)))


def _check_metric(part: Part, name: str) -> None:
    if name not in METRICS:
        known = [n for n, metric in METRICS.items() if metric.better or metric.column]
        part.report(f"no result is called {show(name)}{did_you_mean(name, known)}")


def _margin(part: Part, kind: Kind, text: str | None) -> float:
    if text is None:
        return PREDICTED_WITHIN if kind == "prediction" else 0.0
    value = scalar(text)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        part.report(f"got {show(text)}; must be a number above 0")
        return 0.0
    return value / 100 if kind == "prediction" else float(value)


def _formula(part: Part, text: str | None, derived: Mapping[str, Formula]) -> Formula | None:
    if text is None:
        return None
    # Columns in messages are those of the expression alone, which is quoted with them.
    node = replace(part.node, value=text, text_column=None)
    return read_formula(replace(part, node=node), derived)


# From a sentence to settings


def _claim(sentence: Sentence, trials: Sequence[Trial], graphs: StageGraphs) -> Claim | None:
    try:
        settings = _settings(sentence, trials)
        arms = _ARMS.get(sentence.kind, _compared)
        families = tuple(arms(sentence, family) for family in _families(sentence, settings))
        _check_measured(sentence, settings, graphs)
        return Claim(
            name=sentence.name,
            text=sentence.text,
            kind=sentence.kind,
            metric=str(sentence.words["metric"]),
            rises=sentence.words.get("way") not in ("falls", "lower"),
            margin=sentence.margin,
            families=families,
        )
    except ExpressionError as error:
        sentence.part.report(error.text)
    except ValidationError as error:
        # Of the check of `Claim`, which says which settings are too few.
        sentence.part.report(str(error.errors()[0]["ctx"]["error"]))
    except ValueError as error:
        sentence.part.report(str(error))
    return None


def _settings(sentence: Sentence, trials: Sequence[Trial]) -> list[Trial]:
    """Find the settings that a claim is about: one trial of each, whatever its seed."""
    settings = {setting_name(trial.name): trial for trial in trials}
    where = sentence.where
    kept = [t for t in settings.values() if where is None or where.value(t.config)]
    if not kept:
        raise ValueError(f"no setting meets `{where.text if where else ''}`")
    return kept


def _families(sentence: Sentence, settings: Sequence[Trial]) -> list[list[Trial]]:
    """Group settings that differ in nothing but what the claim compares."""
    moves = _moves(sentence, settings)
    found = _alike(settings, moves)
    if sentence.kind not in ("difference", "equivalence"):
        return found
    # Families without one of the two values are about other values.
    both = [f for f in found if all(_at(sentence, f, end) for end in ("first", "second"))]
    return both or found


def _moves(sentence: Sentence, settings: Sequence[Trial]) -> frozenset[str]:
    """List the keys that may differ between the settings of a family."""
    over = sentence.over
    keys = {str(sentence.words["key"])} if over is None else set(over.reads)
    if over is not None:
        # A quantity reads more than changes it in this sweep: parameters with a head of the
        # decoder read the weight of the loss that the head is for.
        x = {trial.name: over.value(trial.config) for trial in settings}
        keys = {
            key
            for key in keys
            if any(len({x[t.name] for t in same}) > 1 for same in _alike(settings, {key}))
        }
    # The keys of a zip group change with the one that is compared.
    return frozenset(keys).union(*(group for group in sentence.together if keys & group))


def _alike(settings: Sequence[Trial], but: Iterable[str]) -> list[list[Trial]]:
    """Group settings that agree in every axis but some, in their order."""
    groups: dict[str, list[Trial]] = {}
    for trial in settings:
        rest = {key: value for key, value in trial.axes.items() if key not in {*but, SEED}}
        groups.setdefault(json.dumps(rest, default=str), []).append(trial)
    return list(groups.values())


def _sized(sentence: Sentence, family: Sequence[Trial]) -> tuple[Arm, ...]:
    """Give each setting of a trend or a prediction the quantity that it is over, ascending."""
    assert sentence.over is not None
    found = [(float(sentence.over.value(t.config)), setting_name(t.name)) for t in family]
    if any(x <= 0 for x, _ in found):
        raise ValueError(f"{sentence.over.text} is not above 0 everywhere, as a size must be")
    return tuple(Arm(setting=name, x=x) for x, name in sorted(found))


def _ordered(sentence: Sentence, family: Sequence[Trial]) -> tuple[Arm, ...]:
    """Take settings in the order of an axis: numbers ascending, anything else as listed."""
    key = _varied(sentence, family)
    values = [trial.axes[key] for trial in family]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    kept = sorted(family, key=lambda t: float(t.axes[key])) if numbers else family
    return tuple(Arm(setting=setting_name(trial.name)) for trial in kept)


def _compared(sentence: Sentence, family: Sequence[Trial]) -> tuple[Arm, ...]:
    """Take the two settings of a comparison, the one compared against first."""
    key = _varied(sentence, family)
    arms = []
    for end in ("first", "second"):
        found = _at(sentence, family, end)
        if len(found) != 1:
            values = list(dict.fromkeys(show(trial.axes[key]) for trial in family))
            wanted = str(sentence.words[end])
            what = "no setting has" if not found else f"{len(found)} settings have"
            raise ValueError(
                f"{what} {key} = {wanted}; its values are {listed(values)}"
                + did_you_mean(wanted, values)
            )
        arms.append(Arm(setting=setting_name(found[0].name)))
    return tuple(arms)


_ARMS: Mapping[Kind, Callable[[Sentence, Sequence[Trial]], tuple[Arm, ...]]] = {
    "trend": _sized,
    "prediction": _sized,
    "order": _ordered,
}


def _at(sentence: Sentence, family: Sequence[Trial], end: str) -> list[Trial]:
    """Find the settings of a family at a value of the compared key, as the file writes it."""
    wanted, key = str(sentence.words[end]).strip(), str(sentence.words["key"])
    return [t for t in family if key in t.axes and _same(t.axes[key], wanted)]


def _same(value: Any, text: str) -> bool:
    # One of several kinds compares as its name, as it does in `where`.
    if isinstance(value, Mapping) and value.get("name") == text:
        return True
    # 0.50 is the 0.5 of the axis; a size given by numbers is compared as it is printed.
    return bool(value == scalar(text)) or show(value) == text


def _varied(sentence: Sentence, family: Sequence[Trial]) -> str:
    key, known = str(sentence.words["key"]), list(family[0].axes)
    if key not in known:
        keys = [name for name in known if name != SEED]
        raise ValueError(
            f"{key} does not vary; what does: {listed(keys)}{did_you_mean(key, keys)}"
        )
    return key


def _check_measured(sentence: Sentence, settings: Sequence[Trial], graphs: StageGraphs) -> None:
    metric = str(sentence.words["metric"])
    scores = {
        score
        for trial in settings
        for stage, _ in graphs(trial.config)
        for score in stage.scores(trial.config)
    }
    if metric not in scores:
        raise ValueError(
            f"no stage of this sweep reports {metric}; they report {listed(sorted(scores))}"
        )
