import subprocess
import sys

import pytest

from gigatok.published.sizes import GENERATOR_SIZES, TOKENIZER_SIZES


def test_heads_are_64_wide() -> None:
    for size in (*TOKENIZER_SIZES.values(), *GENERATOR_SIZES.values()):
        assert size.width == 64 * size.heads


def test_names_are_their_keys() -> None:
    for table in (TOKENIZER_SIZES, GENERATOR_SIZES):
        assert [size.name for size in table.values()] == list(table)


@pytest.mark.heavy
def test_sizes_import_no_torch() -> None:
    program = "import sys, gigatok.published.sizes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
