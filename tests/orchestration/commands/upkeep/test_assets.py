"""The command that lists and fetches data and networks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gigatok.__main__ import app
from gigatok.data.asset_table import ASSETS, Asset, KnownFile, copied
from gigatok.files.mirrors import Url
from tests.gigatok.web_server import Server, serving

MICRO = ("fashion_mnist", "inception", "lpips_vgg")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIGATOK_CACHE", str(tmp_path))
    for variable in ("GIGATOK_CIFAR10", "GIGATOK_INCEPTION", "GIGATOK_IMAGENET"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def serve_small_files(server: Server, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Put small files of the server in place of assets."""
    for name in names:
        content = name.encode()
        server.files[f"/{name}"] = content
        sha256 = hashlib.sha256(content).hexdigest()
        mirrors = (Url(server.url(f"/{name}"), sha256),)
        asset = Asset("test", "none", 0, mirrors, copied, KnownFile(f"{name}.bin", sha256))
        monkeypatch.setitem(ASSETS, name, asset)


def test_lists(cache: Path) -> None:
    listed = CliRunner().invoke(app, ["assets"])
    assert listed.exit_code == 0
    assert "cifar10" in listed.output
    assert "not fetched" in listed.output


def test_refuses_what_it_does_not_know(cache: Path) -> None:
    refused = CliRunner().invoke(app, ["assets", "fetch", "nonsense"])
    assert refused.exit_code == 2


def test_fetches_all_that_a_sweep_reads(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as server:
        serve_small_files(server, monkeypatch, *MICRO)
        words = ["assets", "fetch", "decoder_scaling", "--scale", "micro"]
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [f"{name}: {cache / name}.bin" for name in MICRO]
    assert [(cache / f"{name}.bin").read_text() for name in MICRO] == list(MICRO)


def test_overrides_decide_what_is_fetched(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving({}) as server:
        serve_small_files(server, monkeypatch, *MICRO, "resnet50")
        words = ["assets", "fetch", "semantic_weight", "--scale", "micro"]
        done = CliRunner().invoke(app, [*words, "--set", "tokenizer.teacher=resnet50"])
    assert "resnet50: " in done.output
    assert "mobilenetv2: " not in done.output


def test_nothing_is_needed_at_smoke(cache: Path) -> None:
    done = CliRunner().invoke(app, ["assets", "fetch", "decoder_scaling", "--scale", "smoke"])
    assert done.exit_code == 0
    assert done.output == "nothing to fetch\n"


def test_names_what_only_the_user_has_and_fetches_the_rest(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIGATOK_DINOV2", str(cache))
    with serving({}) as server:
        serve_small_files(server, monkeypatch, "inception", "lpips_vgg")
        done = CliRunner().invoke(app, ["assets", "fetch", "decoder_scaling", "--scale", "paper"])
    assert done.exit_code == 2
    assert (cache / "inception.bin").read_text() == "inception"
