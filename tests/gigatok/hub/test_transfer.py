"""A tokenizer goes to a hub and comes back; the hub is a server on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gigatok
from gigatok.hub import transfer
from tests.gigatok.hub.hub_server import COMMIT, TOKEN, HubServer, hub_server

PROGRAM = """
import sys
import numpy as np
import gigatok

tokenizer = gigatok.load(sys.argv[1])
print(tokenizer.push_to_hub("me/mine"))
again = gigatok.Tokenizer.from_pretrained("me/mine")
images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
codes = tokenizer.encode(images)
assert (again.encode(images) == codes).all()
assert (again.decode(codes) == tokenizer.decode(codes)).all()
assert again.origin == tokenizer.origin
"""


def program(
    server: HubServer, folder: Path, code: str, *words: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a program whose hub is the server: huggingface_hub reads the variables when imported."""
    settings = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(folder), "HF_TOKEN": TOKEN}
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, **settings, "HF_HUB_DISABLE_TELEMETRY": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.heavy
def test_a_tokenizer_goes_to_the_hub_and_comes_back(stage: Path, tmp_path: Path) -> None:
    with hub_server() as server:
        done = program(server, tmp_path, PROGRAM, str(stage))
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith(f"/me/mine/commit/{COMMIT}")
        files = server.repositories["me/mine"]
        assert files.keys() == {"config.json", "model.safetensors", "README.md"}
        assert b'from_pretrained("me/mine")' in files["README.md"]
        assert files["model.safetensors"] == (stage / "out" / "model.safetensors").read_bytes()

        load = 'import gigatok; gigatok.load("me/{}")'
        missing = program(server, tmp_path, load.format("other"))
        assert "ValueError: there is no folder me/other with a tokenizer" in missing.stderr
        server.repositories["me/notes"] = {"config.json": b"{}"}
        other = program(server, tmp_path, load.format("notes"))
        assert "ValueError: me/notes on the Hub is no tokenizer" in other.stderr
        # A file that could run code stays where it is.
        files["tokenizer.py"] = files["pytorch_model.bin"] = b"raise SystemExit"
        fresh = program(server, tmp_path / "fresh", load.format("mine"))
        assert fresh.returncode == 0, fresh.stderr
        kept = {file.name for file in (tmp_path / "fresh").rglob("snapshots/*/*")}
        assert kept == {"config.json", "model.safetensors"}

        push = 'import gigatok, sys; gigatok.load(sys.argv[1]).push_to_hub("me/mine")'
        refused = program(server, tmp_path, push, str(stage), HF_TOKEN="hf_wrong")
        assert "ValueError: the Hub does not take me/mine" in refused.stderr
        assert "HF_TOKEN" in refused.stderr
    # What was fetched once is used without a hub.
    offline = program(server, tmp_path, load.format("mine"), HF_HUB_OFFLINE="1")
    assert offline.returncode == 0, offline.stderr


def test_without_the_library_it_is_said_how_to_install_it(
    stage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"no folder me/mine, and .*gigatok-scaling\[hub\]"):
        gigatok.load("me/mine")
    with pytest.raises(ValueError, match=r"pip install 'gigatok-scaling\[hub\]'"):
        transfer.upload(tmp_path, "me/mine", private=None, token=None)
    # Folders need no hub.
    gigatok.load(stage).save_pretrained(tmp_path)
