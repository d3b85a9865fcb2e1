import pytest
import torch

from gigatok.config import CNNConfig, TokenizerArchitecture, TransformerSize
from gigatok.models.tokenizer.codebook import initialise_from_data
from gigatok.models.tokenizer.layout import tokenizer_parameters
from gigatok.models.tokenizer.tokenizer import GigaTok, sincos_positions

CNN = CNNConfig(
    channels=16,
    multipliers=(1, 2),
    resblocks=1,
    mid_blocks=0,
    z_channels=16,
    groups=4,
    patch_size=2,
)
MICRO = TokenizerArchitecture(
    encoder=TransformerSize(width=16, layers=1, heads=2),
    decoder=TransformerSize(width=32, layers=2, heads=2),
    cnn=CNN,
    num_latent_tokens=32,
    codebook_size=64,
    codebook_dim=8,
    usage_window=256,
    semantic_layer=1,
    init="fan_in",
)


def build(seed: int = 0, *, teacher_grid: int = 0, **changes: object) -> GigaTok:
    torch.manual_seed(seed)
    config = MICRO.model_copy(update=changes)
    return GigaTok(config, 32, teacher_dim=12, teacher_grid=teacher_grid)


@pytest.fixture
def image_BCHW() -> torch.Tensor:
    return torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_shapes(image_BCHW: torch.Tensor) -> None:
    tokenizer = build()
    output = tokenizer(image_BCHW)
    assert output.reconstruction_BCHW.shape == image_BCHW.shape
    assert output.codes_BS.shape == (4, 32)
    assert output.codes_BS.dtype == torch.int64
    assert output.semantic_BNS.shape == (4, 8 * 8, 12)
    assert output.spatial_BCHW.shape == output.rec_spatial_BCHW.shape == (4, 16, 8, 8)
    assert tokenizer.encode_latents(image_BCHW).shape == (4, 32, 8)
    assert build(teacher_grid=4)(image_BCHW).semantic_BNS.shape == (4, 4 * 4, 12)


@torch.no_grad()
def test_the_head_sees_means_over_teacher_cells_row_major(image_BCHW: torch.Tensor) -> None:
    tokenizer = build(teacher_grid=4)
    seen: list[torch.Tensor] = []
    decoder = tokenizer.s1to2decoder
    decoder.transformer[0].register_forward_hook(lambda *call: seen.append(call[-1]))
    decoder.distill_mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    tokenizer(image_BCHW)
    stream_BHWD, pooled_BPD = seen[0].view(4, 8, 8, 32), seen[1]
    # Teacher cell 6 is row 1, column 2: grid rows 2 and 3, columns 4 and 5.
    torch.testing.assert_close(pooled_BPD[:, 6], stream_BHWD[:, 2:4, 4:6].mean((1, 2)))


@torch.no_grad()
def test_encode_and_decode_agree_with_forward(image_BCHW: torch.Tensor) -> None:
    tokenizer = build().eval()
    output = tokenizer(image_BCHW)
    assert torch.equal(tokenizer.encode(image_BCHW), output.codes_BS)
    torch.testing.assert_close(
        tokenizer.decode(output.codes_BS), output.reconstruction_BCHW, atol=1e-4, rtol=1e-4
    )


def test_without_semantic_weight_there_is_no_head(image_BCHW: torch.Tensor) -> None:
    tokenizer = build(semantic_weight=0.0)
    assert tokenizer(image_BCHW).semantic_BNS is None
    assert not [name for name in tokenizer.state_dict() if "distill" in name]


@pytest.mark.parametrize("init", ["reference", "fan_in"])
@pytest.mark.parametrize("semantic_weight", [0.0, 0.5])
def test_counts_by_part(init: str, semantic_weight: float) -> None:
    for mid_blocks, resblocks in ((0, 1), (2, 3)):
        cnn = CNN.model_copy(update={"mid_blocks": mid_blocks, "resblocks": resblocks})
        tokenizer = build(cnn=cnn, init=init, semantic_weight=semantic_weight)
        count = tokenizer_parameters(tokenizer.config, 32, 12)
        sizes = {"encoder": 0, "decoder": 0, "head": 0, "codebook": 0}
        for name, parameter in tokenizer.named_parameters():
            sizes[part_of(name)] += parameter.numel()
        assert sizes == {part: getattr(count, part) for part in sizes}
        assert count.total == sum(sizes.values())


def part_of(name: str) -> str:
    if "distill_mlp" in name:
        return "head"
    if name.startswith("quantize."):
        return "codebook"
    return "encoder" if name.startswith(("encoder", "s2to1", "quant_conv")) else "decoder"


def test_training_reduces_the_loss_on_one_batch(image_BCHW: torch.Tensor) -> None:
    tokenizer = build().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), lr=2e-3)
    losses = []
    for _ in range(20):
        output = tokenizer(image_BCHW)
        loss = (output.reconstruction_BCHW - image_BCHW).square().mean() + sum(
            output.losses.values()
        )
        loss = loss + output.semantic_BNS.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    unused = [name for name, p in tokenizer.named_parameters() if p.grad is None]
    assert unused == []
    assert losses[-1] < 0.7 * losses[0]


def test_gradients_reach_the_encoder_through_the_codes(image_BCHW: torch.Tensor) -> None:
    tokenizer = build()
    tokenizer(image_BCHW).reconstruction_BCHW.square().sum().backward()
    assert tokenizer.encoder.conv_in.weight.grad.abs().max() > 0


def test_a_training_step_never_waits_for_the_device() -> None:
    """On the meta device any read of a value raises."""
    with torch.device("meta"):
        tokenizer = build(entropy_weight=0.1)
        output = tokenizer(torch.rand(2, 3, 32, 32))
        (output.reconstruction_BCHW.sum() + sum(output.losses.values())).backward()
    assert tokenizer.encoder.conv_in.weight.grad.is_meta


def test_a_seed_decides_the_weights() -> None:
    first, again, other = build(0).state_dict(), build(0).state_dict(), build(1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder.conv_in.weight"], other["encoder.conv_in.weight"])


def test_reference_initialisation() -> None:
    tokenizer = build(
        init="reference", decoder=TransformerSize(width=256, layers=1, heads=4), semantic_layer=1
    )
    layer = tokenizer.s1to2decoder.transformer[0]
    assert layer.linear1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert layer.self_attn.out_proj.weight.std().item() == pytest.approx(0.02, rel=0.05)
    xavier = (2 / (256 + 3 * 256)) ** 0.5
    assert layer.self_attn.in_proj_weight.std().item() == pytest.approx(xavier, rel=0.05)
    assert layer.self_attn.in_proj_weight.abs().max().item() <= xavier * 3**0.5
    assert tokenizer.s1to2decoder.positional_embedding.std().item() == pytest.approx(
        256**-0.5, rel=0.05
    )
    assert layer.linear1.bias.abs().max() == 0
    # Made after the model-wide initialisation in the reference: PyTorch's default, bias included.
    assert tokenizer.post_quant_conv.bias.abs().max() > 0
    assert tokenizer.post_quant_conv.weight.abs().max().item() <= 8**-0.5


def test_fan_in_initialisation() -> None:
    tokenizer = build(decoder=TransformerSize(width=256, layers=1, heads=4))
    layer = tokenizer.s1to2decoder.transformer[0]
    assert layer.linear1.weight.std().item() == pytest.approx(256**-0.5, rel=0.05)
    assert layer.linear2.weight.std().item() == pytest.approx((3 * 1024) ** -0.5, rel=0.05)
    assert layer.self_attn.in_proj_weight.std().item() == pytest.approx(256**-0.5, rel=0.05)
    for table in ("positional_embedding", "latent_token_positional_embedding"):
        values = getattr(tokenizer.s1to2decoder, table)
        assert values.square().mean().item() == pytest.approx(1, rel=0.05)
    biases = [p for name, p in tokenizer.named_parameters() if name.endswith("bias")]
    gammas = [p for name, p in tokenizer.named_parameters() if name.endswith("gamma.bias")]
    assert sum(p.sum().item() for p in biases) == sum(p.numel() for p in gammas)


def test_grid_positions_are_distinct_and_of_unit_scale() -> None:
    positions = sincos_positions(8, 64)
    assert positions.shape == (64, 64)
    torch.testing.assert_close(positions.square().mean(-1), torch.ones(64))
    distances = torch.cdist(positions, positions) + 100 * torch.eye(64)
    assert distances.min() > 1
    assert sincos_positions(4, 6).shape == (16, 6)


@pytest.mark.parametrize("image_size", [30, 4])
def test_image_sizes_that_do_not_fit_are_refused(image_size: int) -> None:
    with pytest.raises(ValueError, match=f"image_size {image_size} must be a multiple of 4"):
        GigaTok(MICRO, image_size, 12)


# ── codebook options ───────────────────────────────────────────────────────────────────────────


def test_initialisation_from_data_whitens_and_fills_the_codebook(image_BCHW: torch.Tensor) -> None:
    tokenizer = build()
    initialise_from_data(tokenizer, image_BCHW)
    z_MC = tokenizer.encode_latents(image_BCHW).detach().flatten(0, 1)
    torch.testing.assert_close(z_MC.mean(0), torch.zeros(8), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(z_MC.T), torch.eye(8), atol=2e-2, rtol=0)
    tokenizer(image_BCHW)
    assert tokenizer.quantize.usage() == 1, "each row is the nearest of the latent it came from"


def test_initialisation_needs_as_many_latents_as_codes(image_BCHW: torch.Tensor) -> None:
    tokenizer = build()
    with pytest.raises(ValueError, match=r"1 images have 32 latents, .* pass at least 2 images"):
        initialise_from_data(tokenizer, image_BCHW[:1])


def test_restart_replaces_unused_codes_only(image_BCHW: torch.Tensor) -> None:
    tokenizer = build()
    quantizer = tokenizer.quantize
    tokenizer(image_BCHW)
    used_K, before_KC = quantizer.used_codes(), quantizer.embedding.weight.detach().clone()
    assert 0 < used_K.sum() < 64
    z_BTC = tokenizer.encode_latents(image_BCHW).detach()
    random = torch.Generator().manual_seed(3)
    replaced = quantizer.restart(z_BTC, random)
    assert replaced.item() == (~used_K).sum()
    after_KC = quantizer.embedding.weight
    assert torch.equal(after_KC[used_K], before_KC[used_K])
    unit_MC = torch.nn.functional.normalize(z_BTC.flatten(0, 1), dim=-1)
    assert torch.cdist(after_KC[~used_K], unit_MC).min(-1).values.max() < 1e-3
