import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gigatok.models.winograd import Conv3x3, pays


def images(*shape: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def results(y: Tensor, *inputs: Tensor) -> list[Tensor]:
    """The output, and its gradients for one random direction."""
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(2))
    return [y, *torch.autograd.grad(y, inputs, direction.to(y.dtype))]


# The last strip of the first has fewer rows of tiles than the others.
@pytest.mark.parametrize("shape", [(2, 128, 36, 32), (3, 128, 28, 28)])
def test_outputs_and_gradients_are_those_of_a_convolution(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv, x = Conv3x3(128, 136), images(*shape)
    assert pays(x, conv.weight)
    inputs = (x, conv.weight, conv.bias)
    exact = F.conv2d(*(value.double() for value in inputs), padding=1)
    for found, expected in zip(results(conv(x), *inputs), results(exact, *inputs), strict=True):
        scale = float(expected.detach().std())
        torch.testing.assert_close(found / scale, (expected / scale).float(), atol=1e-4, rtol=0)


def test_maps_may_have_any_memory_layout() -> None:
    torch.manual_seed(0)
    conv, x = Conv3x3(128, 128), images(1, 128, 64, 32)
    assert torch.equal(conv(x), conv(x.contiguous()))
    assert conv(x.contiguous()).is_contiguous(memory_format=torch.channels_last)


def test_where_it_is_used() -> None:
    weight = torch.empty(128, 128, 3, 3)
    assert pays(torch.empty(1, 128, 64, 32), weight)
    assert not pays(torch.empty(1, 128, 64, 30), weight)  # no whole tiles
    assert not pays(torch.empty(1, 128, 32, 32), weight)  # too few of them
    assert not pays(torch.empty(1, 128, 64, 64), weight[:64])
    assert not pays(torch.empty(1, 128, 64, 64).half(), weight)
    assert not pays(torch.empty(1, 128, 64, 64, device="meta"), weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not pays(torch.empty(1, 128, 64, 64), weight)
