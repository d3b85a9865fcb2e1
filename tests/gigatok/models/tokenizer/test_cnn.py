import pytest
import torch
import torch.nn.functional as F

from gigatok.config import CNNConfig
from gigatok.models.tokenizer.cnn import (
    AdaptiveGroupNorm,
    Decoder,
    Downsample,
    Encoder,
    depth_to_space,
    space_to_depth,
)

SMALL = CNNConfig(
    channels=8, multipliers=(1, 2), resblocks=1, mid_blocks=1, z_channels=6, groups=4, patch_size=2
)


def test_depth_to_space_puts_the_block_outside_the_channels() -> None:
    channels = torch.arange(8.0).reshape(1, 8, 1, 1)  # index (dy*2 + dx)*C + c with C = 2
    image = depth_to_space(channels, 2)
    assert image[0, 0].tolist() == [[0, 2], [4, 6]]
    assert image[0, 1].tolist() == [[1, 3], [5, 7]]
    assert not torch.equal(image, F.pixel_shuffle(channels, 2))


def test_space_to_depth_is_the_inverse() -> None:
    image = torch.randn(2, 3, 8, 12)
    folded = space_to_depth(image, 4)
    assert folded.shape == (2, 48, 2, 3)
    assert torch.equal(depth_to_space(folded, 4), image)


def test_adaptive_norm_by_hand() -> None:
    norm = AdaptiveGroupNorm(channels=2, style_channels=1, groups=1)
    for layer, weight, bias in (
        (norm.gamma, [2.0, 0.0], [1.0, 3.0]),
        (norm.beta, [1.0, 0.0], [0.0, 5.0]),
    ):
        layer.weight.data = torch.tensor(weight)[:, None]
        layer.bias.data = torch.tensor(bias)
    x = torch.tensor([1.0, -1.0, -1.0, 1.0]).reshape(1, 2, 1, 2)  # mean 0, variance 1
    out = norm(x, std_BS=torch.tensor([[0.5]]), mean_BS=torch.tensor([[10.0]]))
    # scale = 2*0.5 + 1 = 2 and 3, without "1 +"; bias = 10 and 5
    torch.testing.assert_close(
        out.flatten(), torch.tensor([12.0, 8.0, 2.0, 8.0]), atol=1e-4, rtol=0
    )


def test_decoder_takes_unbiased_statistics_of_its_input() -> None:
    decoder = Decoder(SMALL).eval()
    seen: list[torch.Tensor] = []
    decoder.adaptive[0].register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[1:]))
    z = torch.randn(2, 6, 4, 4)
    decoder(z)
    torch.testing.assert_close(seen[0], (z.flatten(2).var(-1, correction=1) + 1e-6).sqrt())
    torch.testing.assert_close(seen[1], z.flatten(2).mean(-1))


def test_downsampling_pads_right_and_bottom() -> None:
    down = Downsample(1)
    down.conv.weight.data = torch.zeros(1, 1, 3, 3)
    down.conv.weight.data[0, 0, 0, 0] = 1  # picks the top left of each window
    down.conv.bias.data.zero_()
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(down(image), image[:, :, ::2, ::2])


def test_shapes_and_patches() -> None:
    image = torch.randn(2, 3, 32, 32)
    z = Encoder(SMALL)(image)
    assert SMALL.downsampling == 4
    assert z.shape == (2, 6, 8, 8)
    assert Encoder(SMALL).conv_in.weight.shape == (8, 12, 3, 3)
    assert Decoder(SMALL)(z).shape == image.shape


def test_channels_last_is_kept_and_changes_nothing() -> None:
    encoder, decoder = Encoder(SMALL), Decoder(SMALL)
    image = torch.randn(2, 3, 32, 32)
    z, reconstruction = encoder(image), decoder(encoder(image))
    for module in (encoder, decoder):
        module.to(memory_format=torch.channels_last)
    z_last = encoder(image.contiguous(memory_format=torch.channels_last))
    assert z_last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(z_last, z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(decoder(z_last), reconstruction, atol=1e-4, rtol=1e-4)


def test_uneven_norm_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="40 channels do not split into 32 groups"):
        Encoder(CNNConfig(channels=40, groups=32))
