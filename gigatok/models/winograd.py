"""3x3 convolutions with a quarter of the multiplications, on a CPU: Winograd's F(4x4, 3x3).

Direct convolutions run near a CPU's peak, so only fewer multiplications make them faster. Tiles of
4x4 output pixels take 36 multiplications for each pair of channels instead of 144 (Lavin and Gray
2016, arXiv 1509.09308, section 4.3, whose matrices these are). The price is rounding: errors grow
about fivefold, to 1e-5 of the output's scale.

B batch, C input channels, K output channels, P tiles of a chunk, H W height and width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

TILE, WINDOW = 4, 6
"""Sides of a tile of outputs, and of the inputs that it reads."""
CHUNK = 64
"""Tiles that are transformed at once: with 128 channels they fill an L2 cache of 1 MiB."""
MIN_CHANNELS, MIN_TILES = 128, 128
"""Below either, transforming tiles or weights costs more than it saves (measured)."""

_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_WEIGHT = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


class Conv3x3(nn.Conv2d):
    """3x3 convolution that keeps the size of maps, by Winograd's algorithm where it pays."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Map (B, C, H, W) -> (B, K, H, W)."""
        if not pays(x_BCHW, self.weight):
            return super().forward(x_BCHW)
        out: Tensor = _Convolution.apply(x_BCHW, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return out


def pays(x_BCHW: Tensor, weight_KC33: Tensor) -> bool:
    """Tell whether Winograd's algorithm is possible and faster."""
    batch, _, height, width = x_BCHW.shape
    whole = height % TILE == 0 and width % TILE == 0
    large = min(weight_KC33.shape[:2]) >= MIN_CHANNELS
    # In half precision the rounding of the transforms would be seen, and kernels are faster.
    plain = x_BCHW.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    tiles = batch * height * width // TILE**2
    return x_BCHW.device.type == "cpu" and plain and whole and large and tiles >= MIN_TILES


class _Convolution(torch.autograd.Function):
    """Convolution that computes outputs and both gradients from transformed tiles."""

    @staticmethod
    def forward(ctx: FunctionCtx, x_BCHW: Tensor, weight_KC33: Tensor, bias_K: Tensor) -> Tensor:
        ctx.save_for_backward(x_BCHW, weight_KC33)
        return _convolve(x_BCHW, weight_KC33, bias_K)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_BCHW, weight_KC33 = ctx.saved_tensors  # type: ignore[attr-defined]
        (dy_BKHW,) = gradients
        dx_BCHW = dw_KC33 = db_K = None
        for_x, for_weight, for_bias = ctx.needs_input_grad  # type: ignore[attr-defined]
        if for_x:
            # A convolution again, with the weights turned by half a circle.
            dx_BCHW = _convolve(dy_BKHW, weight_KC33.flip(2, 3).transpose(0, 1))
        if for_weight:
            dw_KC33 = _weight_gradient(x_BCHW, dy_BKHW)
        if for_bias:
            db_K = dy_BKHW.sum((0, 2, 3))
        return dx_BCHW, dw_KC33, db_K


def _convolve(x_BCHW: Tensor, weight_KC33: Tensor, bias_K: Tensor | None = None) -> Tensor:
    """Convolve; the result is channels-last."""
    outputs, channels = weight_KC33.shape[:2]
    weight_9CK = weight_KC33.permute(2, 3, 1, 0).reshape(9, -1)
    weight_36CK = (_square(_WEIGHT) @ weight_9CK).view(-1, channels, outputs)
    batch, _, height, width = x_BCHW.shape
    y_BKHW = torch.empty((batch, outputs, height, width), memory_format=torch.channels_last)
    y_BHWK = y_BKHW.permute(0, 2, 3, 1)
    back = _square(_OUTPUT)
    for (image, rows), x_36PC in _tiles(x_BCHW):
        products_36PK = torch.bmm(x_36PC, weight_36CK)
        y_44RTK = (back @ products_36PK.flatten(1)).view(TILE, TILE, -1, width // TILE, outputs)
        y_RTK = _in_tiles(y_BHWK[image, rows])
        if bias_K is None:
            y_RTK.copy_(y_44RTK)
        else:
            torch.add(y_44RTK, bias_K, out=y_RTK)
    return y_BKHW


def _weight_gradient(x_BCHW: Tensor, dy_BKHW: Tensor) -> Tensor:
    """Sum over all tiles the products of transformed inputs and gradients: (K, C, 3, 3)."""
    channels, outputs = x_BCHW.shape[1], dy_BKHW.shape[1]
    dy_BHWK = dy_BKHW.permute(0, 2, 3, 1).contiguous()
    back = _square(_OUTPUT).T.contiguous()
    total_36CK = x_BCHW.new_zeros(WINDOW**2, channels, outputs)
    for (image, rows), x_36PC in _tiles(x_BCHW):
        dy_16PK = _in_tiles(dy_BHWK[image, rows]).reshape(TILE**2, -1)
        dy_36PK = (back @ dy_16PK).view(WINDOW**2, -1, outputs)
        total_36CK.baddbmm_(x_36PC.transpose(1, 2), dy_36PK)
    gradient_9CK = _square(_WEIGHT).T @ total_36CK.flatten(1)
    return gradient_9CK.view(3, 3, channels, outputs).permute(3, 2, 0, 1)


def _tiles(x_BCHW: Tensor) -> Iterator[tuple[tuple[int, slice], Tensor]]:
    """Yield chunks of rows of tiles: image and rows of pixels, and their inputs (36, P, C)."""
    batch, channels, height, width = x_BCHW.shape
    x_BHWC = x_BCHW.permute(0, 2, 3, 1)
    forth, across = _square(_INPUT), width // TILE
    step = TILE * max(1, CHUNK // across)
    for image in range(batch):
        for top in range(0, height, step):
            end = min(top + step, height)
            # Zeros around the image only: strips overlap by the row above and the row below.
            inner_HWC = x_BHWC[image, max(top - 1, 0) : end + 1]
            strip_HWC = F.pad(inner_HWC, (0, 0, 1, 1, int(top == 0), int(end == height)))
            windows_RTC66 = strip_HWC.unfold(0, WINDOW, TILE).unfold(1, WINDOW, TILE)
            windows_36PC = windows_RTC66.permute(3, 4, 0, 1, 2).reshape(WINDOW**2, -1)
            inputs_36PC = (forth @ windows_36PC).view(WINDOW**2, -1, channels)
            yield (image, slice(top, end)), inputs_36PC


def _in_tiles(y_HWK: Tensor) -> Tensor:
    """View rows of pixels (H, W, K) as tiles (4, 4, H/4, W/4, K)."""
    height, width, channels = y_HWK.shape
    tiles = y_HWK.view(height // TILE, TILE, width // TILE, TILE, channels)
    return tiles.permute(1, 3, 0, 2, 4)


def _square(matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """Apply a transform to both axes of a tile, as one matrix."""
    one = torch.tensor(matrix, dtype=torch.float32)
    return torch.kron(one, one)
