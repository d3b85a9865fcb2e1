"""No step waits for the device: what reads a value first is the log, every `log_every` steps."""

from pathlib import Path

import pytest
import torch

from gigatok.models.frozen.teachers import normalised_for_imagenet
from gigatok.runtime.context import Runtime
from tests.gigatok.tiny_stages import train_tiny_generator, train_tiny_tokenizer, write_codes
from tests.gigatok.waiting import NoBlockingCopies, NoConstants, first_wait

pytestmark = pytest.mark.heavy
DEVICES = ["meta", *["cuda"] * torch.cuda.is_available()]


@pytest.mark.parametrize("device", DEVICES)
def test_a_tokenizer_waits_for_the_device_to_log(tmp_path: Path, device: str) -> None:
    def stage(runtime: Runtime) -> None:
        # So long that the first picture comes behind the first line of the log.
        train_tiny_tokenizer(runtime, tmp_path / "out", steps=64)

    assert first_wait(stage, tmp_path, device)[-2:] == ["run", "_finite"]


@pytest.mark.parametrize("device", DEVICES)
def test_a_generator_waits_for_the_device_to_log(tmp_path: Path, device: str) -> None:
    def stage(runtime: Runtime) -> None:
        train_tiny_generator(runtime, tmp_path / "out", write_codes(tmp_path))

    assert first_wait(stage, tmp_path, device)[-2:] == ["run", "_finite"]


def test_constants_are_not_copied_to_the_device() -> None:
    image_BCHW = torch.zeros(1, 3, 4, 4, device="meta")
    with NoBlockingCopies() as copies, NoConstants() as constants:
        copies.armed = constants.armed = True
        assert normalised_for_imagenet(image_BCHW).shape == image_BCHW.shape
        # What would be found.
        with pytest.raises(RuntimeError, match="blocking copy from cpu to meta"):
            torch.zeros(3).to("meta")
        with pytest.raises(RuntimeError, match="blocking copy of"):
            image_BCHW.new_tensor([1.0, 2.0, 3.0])
