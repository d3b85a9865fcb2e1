"""A figure as files: PDF and PNG, the plotted data as CSV, and where each point comes from.

Equal data give equal files: nothing here writes the time.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from analysis.charts import style
from analysis.charts.writing import with_ending
from analysis.figures.plots import FigureInfo, draw_figure
from analysis.figures.points import Panel, Point
from analysis.statistics.estimates import Estimate
from analysis.store.runs import STAGE_KEY, STAGE_RUN, params_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METADATA: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
IMAGE_FORMATS = tuple(_METADATA)


def export_figure(
    info: FigureInfo, runs: pl.DataFrame, folder: Path, formats: Sequence[str] = IMAGE_FORMATS
) -> list[Path]:
    """Write `<name>.pdf`, `.png`, `.csv` and `.json` into a folder, which is made if needed.

    Returns:
        What was written, images first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / info.name
    figure = draw_figure(info)
    paths = [_write_image(figure, with_ending(stem, suffix)) for suffix in formats]
    table, provenance = with_ending(stem, "csv"), with_ending(stem, "json")
    write_csv(info, table)
    text = json.dumps(provenance_of(info, runs), indent=1, sort_keys=True, ensure_ascii=False)
    provenance.write_text(text + "\n", encoding="utf-8")
    return [*paths, table, provenance]


def write_csv(info: FigureInfo, path: Path) -> None:
    """Write one row per mark: each mean with its interval, each seed."""
    rows = [row for panel in info.panels for row in _csv_rows(panel)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def provenance_of(info: FigureInfo, runs: pl.DataFrame) -> dict[str, Any]:
    """Tie every point to its MLflow runs, and those to stages, config and code."""
    used = {s.run_id for panel in info.panels for p in panel.points for s in p.seeds}
    rows = [row for row in runs.iter_rows(named=True) if row["run_id"] in used]
    return {
        "figure": info.name,
        "title": info.title,
        "caption": list(info.caption),
        "sweep_runs": sorted({row["sweep_run_id"] for row in rows}),
        "plans": sorted({row["plan"] for row in rows}),
        "panels": [_panel_record(panel) for panel in info.panels],
        "runs": {row["run_id"]: _run_record(row, params_of(runs)) for row in rows},
    }


def _write_image(figure: Figure, path: Path) -> Path:
    metadata = _METADATA[path.suffix.removeprefix(".")]
    with style.applied():
        figure.savefig(path, dpi=style.DPI, metadata=metadata)
    return path


def _csv_rows(panel: Panel) -> Iterable[dict[str, Any]]:
    for point in panel.points:
        shared = {
            "panel": panel.title,
            "label": point.label,
            "tokenizer": point.tokenizer,
            "x_metric": panel.x.key,
            "y_metric": panel.y.key,
            "x_protocol": point.protocols[0],
            "y_protocol": point.protocols[1],
        }
        means = {
            "mark": "mean",
            "seed": None,
            **_flat("x", point.x),
            **_flat("y", point.y),
            "run_ids": " ".join(seed.run_id for seed in point.seeds),
        }
        yield shared | means
        for seed in point.seeds:
            blank: dict[str, Any] = dict.fromkeys(means)
            own = {"mark": "seed", "seed": seed.seed, "x": seed.x, "y": seed.y}
            yield shared | blank | own | {"run_ids": seed.run_id}


def _flat(name: str, found: Estimate) -> dict[str, Any]:
    has_interval = found.interval != "none"
    return {
        name: found.mean,
        f"{name}_low": found.low if has_interval else None,
        f"{name}_high": found.high if has_interval else None,
        f"{name}_n": found.n,
        f"{name}_interval": found.interval,
    }


def _panel_record(panel: Panel) -> dict[str, Any]:
    return {
        "title": panel.title,
        "x": panel.x.key,
        "y": panel.y.key,
        "omitted": list(panel.omitted),
        "points": [_point_record(point) for point in panel.points],
    }


def _point_record(point: Point) -> dict[str, Any]:
    return {
        "label": point.label,
        **_flat("x", point.x),
        **_flat("y", point.y),
        "x_protocol": point.protocols[0],
        "y_protocol": point.protocols[1],
        "runs": [{"seed": s.seed, "run_id": s.run_id, "x": s.x, "y": s.y} for s in point.seeds],
    }


def _run_record(row: dict[str, Any], params: Sequence[str]) -> dict[str, Any]:
    def below(prefix: str) -> dict[str, str]:
        return {k.removeprefix(prefix): v for k, v in row.items() if v and k.startswith(prefix)}

    return {
        "trial": row["trial"],
        "trial_key": row["trial_key"],
        "state": row["state"],
        "git_sha": row["git_sha"],
        "git_dirty": row["git_dirty"],
        "sweep_run_id": row["sweep_run_id"],
        "stage_runs": below(STAGE_RUN),
        "stage_keys": below(STAGE_KEY),
        "config": {name: row[name] for name in params},
    }
