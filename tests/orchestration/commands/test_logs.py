from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from orchestration.commands.logs import Printer
from orchestration.runs.state import StageFolder
from orchestration.study.logs import PIECE_BYTES, LogReader


def write(folder: StageFolder, content: bytes) -> Path:
    log = folder.log(1)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(content)
    return log


def test_a_log_larger_than_memory_is_printed_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = StageFolder.at(tmp_path / "train_tokenizer" / "S-S-0123")
    write(folder, b"a line of a log\n" * (16 * PIECE_BYTES // 16))
    with (tmp_path / "printed").open("w", encoding="utf-8") as printed:
        monkeypatch.setattr("sys.stdout", printed)
        tracemalloc.start()
        Printer().print_new([LogReader(folder, "train_tokenizer", all_attempts=True)])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (tmp_path / "printed").stat().st_size > 16 * PIECE_BYTES
    assert peak < 8 * PIECE_BYTES


def test_a_character_that_is_written_in_two_parts_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = StageFolder.at(tmp_path / "train_tokenizer" / "S-S-0123")
    character = "ö".encode()
    write(folder, b"x" * (PIECE_BYTES - 1) + character + b"gr" + character[:1])
    reader, printer = LogReader(folder, "train_tokenizer", all_attempts=True), Printer()
    printer.print_new([reader])
    write(folder, character[1:] + b"\xff\n")
    printer.print_new([reader])
    assert capsys.readouterr().out.endswith("xögrö\ufffd\n")
