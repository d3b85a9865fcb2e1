import pytest
import torch
from torch import nn

from gigatok.models.packed import PackedLinear, packed


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 24), nn.Sequential(nn.GELU(), nn.Linear(24, 8, bias=False)))


@torch.no_grad()
@pytest.mark.parametrize("shape", [(3, 16), (3, 1, 16), (5, 16)])
def test_a_packed_view_computes_the_same(shape: tuple[int, ...]) -> None:
    layers, x = model(), torch.randn(shape)
    torch.testing.assert_close(packed(layers, 3)(x), layers(x))


def test_the_model_keeps_its_layers_and_the_view_shares_the_rest() -> None:
    layers = model().eval()
    view = packed(layers, 3)
    assert isinstance(view[0], PackedLinear)
    assert isinstance(view[1][1], PackedLinear)
    assert not view[1].training
    assert isinstance(layers[0], nn.Linear)
    assert isinstance(layers[1][1], nn.Linear)
    assert list(model().state_dict()) == list(layers.state_dict())


@torch.no_grad()
def test_other_types_and_devices_are_not_packed() -> None:
    layers, x = model().double(), torch.randn(3, 16).double()
    assert torch.equal(packed(layers, 3)(x), layers(x))
    assert isinstance(packed(model().to("meta"), 3)[0], nn.Linear)


@torch.no_grad()
def test_half_precision() -> None:
    layers, x = model().bfloat16(), torch.randn(3, 16).bfloat16()
    torch.testing.assert_close(packed(layers, 3)(x), layers(x))
