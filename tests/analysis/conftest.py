"""Real MLflow stores, written as the launcher writes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from gigatok.names import (
    KIND_STAGE,
    KIND_SWEEP,
    KIND_TRIAL,
    PREFIX_PROTOCOL,
    PREFIX_STAGE_KEY,
    PREFIX_STAGE_RUN,
    TAG_AXES,
    TAG_ERROR,
    TAG_GIT_DIRTY,
    TAG_GIT_SHA,
    TAG_KIND,
    TAG_LAUNCHED,
    TAG_PLAN,
    TAG_QUESTION,
    TAG_SCALE,
    TAG_STATE,
    TAG_TRIAL,
    TAG_TRIAL_KEY,
)

PARENT = "mlflow.parentRunId"
QUESTION = "At a fixed encoder, what does a larger decoder buy?"
PROTOCOLS = {
    "rkid": "Inception 139 px, 2000 validation images",
    "gkid": "Inception 139 px, 500 samples against 2000 images, CFG 1.5",
    "psnr": "2000 validation images, [0,1]",
    "lpips": "AlexNet at 64 px, 2000 validation images",
    "ar_val_loss": "2000 validation images, 32 tokens, vocabulary 512",
    "ar_bits_per_image": "2000 validation images, 32 tokens, vocabulary 512",
}
SIZES = {"S-S": 0.68e6, "S-B": 0.95e6, "S-L": 1.74e6}
DECODERS = {"S": (64, 1), "B": (96, 2), "L": (128, 4)}


@dataclass
class Store:
    """Writes sweeps into one sqlite database."""

    uri: str
    client: MlflowClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = MlflowClient(tracking_uri=self.uri)

    def experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        return found.experiment_id if found else self.client.create_experiment(name)

    def sweep(
        self,
        name: str,
        plan: str,
        launched: float,
        *,
        scale: str = "micro",
        axes: tuple[str, ...] = ("tokenizer.encoder", "tokenizer.decoder"),
        question: str = QUESTION,
    ) -> str:
        tags = {
            TAG_KIND: KIND_SWEEP,
            TAG_PLAN: plan,
            TAG_SCALE: scale,
            TAG_QUESTION: question,
            TAG_AXES: json.dumps(axes),
            TAG_LAUNCHED: str(launched),
        }
        return self.client.create_run(self.experiment(name), tags=tags).info.run_id

    def trial(
        self,
        sweep: str,
        parent: str,
        tokenizer: str,
        metrics: Mapping[str, float],
        *,
        seed: int = 0,
        state: str = "COMPLETE",
        error: str = "",
        params: Mapping[str, Any] | None = None,
        protocols: Mapping[str, str] = PROTOCOLS,
    ) -> str:
        flat = _params(tokenizer, seed) | dict(params or {})
        varied = "".join(f" {k}={v}" for k, v in (params or {}).items())
        name = f"{tokenizer}{varied} seed={seed}"
        stage = self._stage(sweep, parent, state, error)
        tags = {
            TAG_KIND: KIND_TRIAL,
            PARENT: parent,
            TAG_TRIAL: name,
            TAG_TRIAL_KEY: f"key {name} {sorted(flat.items())}",
            TAG_STATE: state,
            TAG_GIT_SHA: "c0ffee",
            PREFIX_STAGE_RUN + "train_tokenizer": stage,
            PREFIX_STAGE_KEY + "train_tokenizer": f"stagekey-{name}",
            **{PREFIX_PROTOCOL + m: protocols[m] for m in metrics if m in protocols},
        }
        return self._log(sweep, tags, flat, metrics)

    def _stage(self, sweep: str, parent: str, state: str, error: str) -> str:
        tags = {TAG_KIND: KIND_STAGE, PARENT: parent, TAG_STATE: state, TAG_GIT_DIRTY: "false"}
        run = self._log(sweep, tags | ({TAG_ERROR: error} if error else {}), {}, {})
        for step, value in ((1, 0.9), (2, 0.7), (3, 0.5)):
            self.client.log_metric(run, "train/loss", value, timestamp=step, step=step)
        self.client.log_metric(run, "train/loss", 0.6, timestamp=9, step=2)
        return run

    def _log(
        self, sweep: str, tags: Mapping[str, str], params: Mapping[str, Any], metrics: Any
    ) -> str:
        run = self.client.create_run(self.experiment(sweep), start_time=1).info.run_id
        self.client.log_batch(
            run,
            metrics=[Metric(k, v, 1, 0) for k, v in metrics.items()],
            params=[Param(k, _text(v)) for k, v in params.items()],
            tags=[RunTag(k, v) for k, v in tags.items()],
        )
        return run


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _params(tokenizer: str, seed: int) -> dict[str, Any]:
    decoder = tokenizer.partition("-")[2]
    width, layers = DECODERS[decoder]
    return {
        "tokenizer": tokenizer,
        "seed": seed,
        "data.name": "cifar10",
        "tokenizer.decoder": decoder,
        "tokenizer.decoder.width": width,
        "tokenizer.decoder.layers": layers,
        "tokenizer.lr": 2e-5,
        "tokenizer.cnn.multipliers": [1, 2],
        "tokenizer.semantic_weight": 0.0,
        "tokenizer.rotation_trick": True,
        "tokenizer.micro_batch": None,
        "generator.dropout": 0.1,
    }


def scores(
    tokenizer: str, psnr: float, lpips: float, rkid: float | None, ar: float, bits: float,
    probe: float, gkid: float | None,
) -> dict[str, float]:  # fmt: skip
    """One row of results; None is not logged."""
    size = SIZES[tokenizer]
    kid = {"rkid": rkid, "rkid_se": 60.0, "gkid": gkid, "gkid_se": 75.0}
    return {
        "params_total": size,
        "params_head": 0.0,
        "params_decoder": size - 0.4e6,
        "psnr": psnr,
        "lpips": lpips,
        "ar_val_loss": ar,
        "ar_bits_per_image": bits,
        "probe_accuracy": probe,
        "codebook_usage": 1.0,
        **{k: v for k, v in kid.items() if v is not None and rkid is not None},
    }


GRID = [
    ("S-S", 0, 0.0, scores("S-S", 17.90, 0.352, 3486, 3.93, 181, 0.308, 3684)),
    ("S-S", 1, 0.0, scores("S-S", 17.91, 0.361, 3213, 4.03, 186, 0.293, 3389)),
    ("S-B", 0, 0.0, scores("S-B", 18.65, 0.341, None, 4.36, 201, 0.305, None)),
    ("S-L", 0, 0.0, scores("S-L", 18.10, 0.356, 3470, 4.24, 196, 0.306, 3961)),
    ("S-L", 1, 0.0, scores("S-L", 18.1099, 0.354, 3136, 4.40, 203, 0.302, 3298)),
    ("S-S", 0, 0.5, scores("S-S", 17.64, 0.363, 3456, 3.63, 168, 0.363, 3608)),
    ("S-S", 1, 0.5, scores("S-S", 17.34, 0.381, 4262, 3.48, 161, 0.366, 4176)),
    ("S-L", 0, 0.5, scores("S-L", 18.26, 0.335, 3483, 4.11, 190, 0.349, 3869)),
    ("S-L", 1, 0.5, scores("S-L", 17.84, 0.367, 3426, 3.94, 182, 0.327, 3565)),
]
"""A measured 700-step grid on CIFAR-10: two seeds, S-B once and without KID."""


def write_grid(store: Store) -> None:
    """Two plans of decoder_scaling: an old one, and the newer grid with a deleted trial."""
    old = store.sweep("decoder_scaling", "aaaa1111", 1000.0, scale="smoke")
    store.trial("decoder_scaling", old, "S-S", {"psnr": 9.0, "params_total": 0.68e6})
    axes = ("tokenizer.encoder", "tokenizer.decoder", "tokenizer.semantic_weight")
    new = store.sweep("decoder_scaling", "bbbb2222", 2000.0, axes=axes)
    for tokenizer, seed, weight, metrics in GRID:
        weights = {"tokenizer.semantic_weight": weight}
        store.trial("decoder_scaling", new, tokenizer, metrics, seed=seed, params=weights)
    gone = store.trial("decoder_scaling", new, "S-B", {"psnr": 99.0}, seed=7)
    store.client.delete_run(gone)


def write_troubled(store: Store) -> None:
    """Three trials, one seed: complete, NaN, failed half-way."""
    run = store.sweep("tokenizer_scaling", "cccc3333", 3000.0, question="")
    store.trial("tokenizer_scaling", run, "S-S", GRID[0][3])
    bad = GRID[2][3] | {"ar_val_loss": float("nan"), "gkid": float("inf")}
    store.trial("tokenizer_scaling", run, "S-B", bad)
    partial = {k: GRID[3][3][k] for k in ("params_total", "params_head", "psnr", "lpips")}
    store.trial(
        "tokenizer_scaling", run, "S-L", partial, state="FAILED", error="out of memory\ntrace"
    )


def write_entropy(store: Store) -> None:
    """One tokenizer over a numeric axis, and one trial at a later plan with the same settings."""
    axes = ("tokenizer.entropy_weight",)
    for plan, launched, weights in (
        ("dddd4444", 1.0, (0.0, 0.01)),
        ("eeee5555", 2.0, (0.0, 0.02)),
    ):
        run = store.sweep("entropy_loss", plan, launched, axes=axes, question="Entropy?")
        for weight in weights:
            usage = {"params_total": 0.68e6, "psnr": 16.2, "codebook_usage": 0.16 + 42 * weight}
            params = {"tokenizer.entropy_weight": weight}
            store.trial("entropy_loss", run, "S-S", usage, params=params)


def write_unfinished(store: Store) -> None:
    run = store.sweep("semantic_layer", "ffff6666", 1.0)
    store.trial("semantic_layer", run, "S-S", {}, state="FAILED", error="no disk")
    store.trial("semantic_layer", run, "S-B", {}, state="WAITING")
    usage = store.sweep("generator_scaling", "99997777", 1.0, axes=())
    store.trial("generator_scaling", usage, "S-S", {"params_total": 1.0, "ssim": 0.5})
    store.sweep("launched_only", "12345678", 1.0)
    store.client.delete_experiment(store.experiment("dropped"))


@pytest.fixture
def empty_store(tmp_path: Path, empty_database: Path) -> Store:
    return Store(f"sqlite:///{shutil.copy(empty_database, tmp_path)}")


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    path = Path(shutil.copy(empty_database, tmp_path_factory.mktemp("tracking store")))
    store = Store(f"sqlite:///{path}")
    for write in (write_grid, write_troubled, write_entropy, write_unfinished):
        write(store)
    return path


@pytest.fixture(scope="session")
def uri(database: Path) -> str:
    return f"sqlite:///{database}"
