"""Outputs, parameter names and counts of the authors' implementation, on seeded weights.

`golden/` holds subsets of what the reference computes. Each weight is drawn from a generator
seeded by its name, so no checkpoint is needed.
"""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gigatok.config import GeneratorArchitecture, SamplingConfig, TokenizerArchitecture
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.generator.layout import generator_parameters
from gigatok.models.quantizers.vq import VectorQuantizer
from gigatok.models.tokenizer.layout import tokenizer_parameters
from gigatok.models.tokenizer.tokenizer import GigaTok
from gigatok.published.sizes import GENERATOR_SIZES, TOKENIZER_SIZES
from gigatok.scores.sampling import generate

pytestmark = pytest.mark.heavy
GOLDEN = Path(__file__).parents[1] / "golden"

# sha256 of the sorted "name shape" lines of the published state dicts.
KEYS = {
    "S-S": "3a0623c4017157009564df7212fb534294a168337d662b5c37ae7b6b836c9a56",
    "S-B": "fe434b532b70ae84a95a162e6556d42d5befa2f7f4aef64dc4fbec652b50843e",
    "B-L": "ee8819ddaf9accac803f6ba5aecd935ec86734b419dd25671dc2a869004f4a62",
    "XL-XXL": "92cbbefa4e6503a836074a7d70948dc69b17227775c26625857b34276bf04b68",
    "GPT-B": "bd0a50147ef2b96488c07ef788420155e2bf722a055bebdff32fa22652327b59",
    "GPT-L": "342d58c9bf596c75b6df519e757b602ab3a3bc1c1f41d2b95026066344e5bc50",
    "GPT-XL": "27451a6944336068fb9135673d6138859e0137fe4dfab8b47ba2988c61f241ec",
    "GPT-XXL": "7ed229e5c91cfcde77a17c6a879adab12c625ac74b87a9f64b3f316febff72e6",
}
PARAMETERS = {
    "S-S": 136_073_227,
    "S-B": 232_399_627,
    "B-L": 621_637_131,
    "XL-XXL": 2_893_970_443,
    "GPT-B": 111_085_824,
    "GPT-L": 343_174_144,
    "GPT-XL": 775_028_480,
    "GPT-XXL": 1_411_367_424,
}


def tokenizer_config(name: str, **changes: object) -> TokenizerArchitecture:
    encoder, decoder = (TOKENIZER_SIZES[letter] for letter in name.split("-"))
    return TokenizerArchitecture(encoder=encoder, decoder=decoder, **changes)


def generator_config(name: str) -> GeneratorArchitecture:
    return GeneratorArchitecture(size=GENERATOR_SIZES[name.removeprefix("GPT-")])


def build(name: str) -> nn.Module:
    """A published model on the meta device."""
    with torch.device("meta"):
        if name.startswith("GPT"):
            return LlamaGen(generator_config(name), 16384, 1000, 256)
        return GigaTok(tokenizer_config(name), 256)


def seeded_weight(name: str, shape: torch.Size) -> torch.Tensor:
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("codebook_used"):
        noise *= 0
    elif "positional_embedding" in name:
        noise *= 0.5
    elif noise.ndim >= 2:
        noise /= np.sqrt(np.prod(shape[1:]))
    elif name.endswith("weight"):
        noise = 1 + 0.1 * noise
    else:
        noise *= 0.1
    return torch.from_numpy(noise.astype(np.float32))


def build_seeded(name: str) -> nn.Module:
    model = build(name)
    weights = {key: seeded_weight(key, value.shape) for key, value in model.state_dict().items()}
    model.load_state_dict(weights, assign=True)
    return model.eval()


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape)).float()


def assert_close(actual: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    torch.testing.assert_close(actual, torch.from_numpy(expected), atol=tolerance, rtol=0)


# ── names, shapes, counts ──────────────────────────────────────────────────────────────────────


def key_lines(model: nn.Module) -> list[str]:
    return sorted(f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items())


def test_keys_of_the_smallest_tokenizer_one_by_one() -> None:
    expected = gzip.decompress((GOLDEN / "keys_S-S.txt.gz").read_bytes()).decode().split("\n")
    assert key_lines(build("S-S")) == expected


@pytest.mark.parametrize("name", KEYS)
def test_keys_and_shapes(name: str) -> None:
    lines = "\n".join(key_lines(build(name)))
    assert hashlib.sha256(lines.encode()).hexdigest() == KEYS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_closed_form_counts(name: str) -> None:
    if name.startswith("GPT"):
        count = generator_parameters(generator_config(name), 16384, 1000, 256)
    else:
        count = tokenizer_parameters(tokenizer_config(name), 256).total
    assert count == PARAMETERS[name] == sum(p.numel() for p in build(name).parameters())


# ── S-S tokenizer ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def tokenizer() -> GigaTok:
    return build_seeded("S-S")


@pytest.fixture(scope="module")
def image_BCHW() -> torch.Tensor:
    return (0.5 * normal(123, 1, 3, 256, 256)).clamp(-1, 1)


def assert_golden(
    golden: np.lib.npyio.NpzFile, name: str, actual: torch.Tensor, *at: slice
) -> None:
    """The stored subset, and mean and standard deviation of all of it."""
    assert_close(actual[(slice(None), *at)], golden[name], 3e-5)
    whole = actual.double()
    moments = torch.stack([whole.mean(), whole.std(correction=0)])
    assert_close(moments, golden[f"{name}_moments"], 1e-5)


def every(step: int) -> slice:
    return slice(None, None, step)


@torch.inference_mode()
def test_tokenizer_forward(tokenizer: GigaTok, image_BCHW: torch.Tensor) -> None:
    golden = np.load(GOLDEN / "tokenizer_S-S.npz")
    output = tokenizer(image_BCHW)
    assert_golden(golden, "spatial", output.spatial_BCHW, every(16), every(2), every(2))
    latents = tokenizer.s2to1encoder(output.spatial_BCHW)
    assert_golden(golden, "vit_enc", latents.mT.unsqueeze(2), every(16), every(1), every(4))
    assert_close(tokenizer.quant_conv(latents).mT.unsqueeze(2), golden["z"], 1e-5)
    agree = output.codes_BS.flatten().numpy() == golden["indices"]
    assert agree.mean() > 0.99, "more than argmin ties moved"
    assert_golden(golden, "rec_spatial", output.rec_spatial_BCHW, every(16), every(2), every(2))
    assert output.semantic_BNS is not None
    assert_golden(golden, "inner_feat", output.semantic_BNS, every(16), every(16))
    assert_golden(golden, "recon", output.reconstruction_BCHW, every(1), every(8), every(8))


@torch.inference_mode()
def test_tokenizer_decodes_stored_codes_channels_last(tokenizer: GigaTok) -> None:
    golden = np.load(GOLDEN / "tokenizer_S-S.npz")
    codes_BT = torch.from_numpy(golden["indices"].astype(np.int64))[None]
    image = tokenizer.to(memory_format=torch.channels_last).decode(codes_BT)
    assert_golden(golden, "recon_from_code", image, every(1), every(8), every(8))


# ── quantizer ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("estimator", ["rot", "ste"])
def test_quantizer_values_losses_and_gradients(estimator: str) -> None:
    golden = np.load(GOLDEN / "quantizer.npz")

    def expected(name: str) -> np.ndarray:
        return golden[f"{estimator}_{name}"]

    changes = {"codebook_size": 512, "entropy_weight": 0.005}
    config = tokenizer_config("S-S", rotation_trick=estimator == "rot", **changes)
    quantizer = VectorQuantizer(config)
    quantizer.embedding.weight.data = normal(7, 512, 8)
    z_BCT = normal(8, 2, 8, 1, 32).squeeze(2).requires_grad_()
    quantized = quantizer(z_BCT.mT)
    losses = quantized.losses

    assert_close(quantized.z_BTC.mT.unsqueeze(2), expected("quant"), 1e-6)
    assert (quantized.codes_BS.flatten().numpy() == expected("idx")).all()
    assert losses["vq"].item() == pytest.approx(expected("vq_loss"), abs=1e-7)
    assert losses["commitment"].item() == pytest.approx(expected("commit"), abs=1e-7)
    assert losses["entropy"].item() == pytest.approx(expected("entropy_x0.005"), abs=1e-7)

    upstream_BTC = normal(9, 2, 8, 1, 32).squeeze(2).mT
    weight = quantizer.embedding.weight

    def gradient(output: torch.Tensor, of: torch.Tensor, upstream: torch.Tensor | None = None):
        return torch.autograd.grad(output, of, upstream, retain_graph=True)[0]

    dz = gradient(quantized.z_BTC, z_BCT, upstream_BTC)
    assert_close(dz.unsqueeze(2), expected("dz"), 1e-6)
    assert_close(gradient(losses["entropy"], z_BCT).unsqueeze(2), expected("dz_entropy"), 1e-7)
    assert_close(gradient(sum(losses.values()), weight)[::8], expected("dcodebook"), 1e-7)


# ── GPT-B ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def generator() -> LlamaGen:
    return build_seeded("GPT-B")


@pytest.fixture(scope="module")
def codes_and_classes() -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.RandomState(5)
    codes_BT, classes_B = random.randint(16384, size=(2, 256)), random.randint(1000, size=2)
    return torch.from_numpy(codes_BT), torch.from_numpy(classes_B)


@torch.inference_mode()
def test_generator_logits_loss_and_features(
    generator: LlamaGen, codes_and_classes: tuple[torch.Tensor, torch.Tensor]
) -> None:
    golden = np.load(GOLDEN / "generator_B.npz")
    codes_BT, classes_B = codes_and_classes
    logits_BTV = generator(codes_BT, classes_B)
    assert_close(logits_BTV[:, ::16, :64], golden["logits"], 3e-5)
    loss = F.cross_entropy(logits_BTV.flatten(0, 1), codes_BT.flatten())
    assert loss.item() == pytest.approx(golden["loss"], abs=1e-5)
    features = generator.features(codes_BT, 6, classes_B)[:, ::16, ::16]
    assert_close(features, golden["features"], 3e-5)


@pytest.mark.parametrize(
    ("name", "guidance"),
    [
        ("nocfg", {"cfg_scale": 1}),
        ("cfg2_constant", {"cfg_scale": 2}),
        ("cfg2_step", {"cfg_scale": 2, "cfg_schedule": "step", "cfg_start": 0.5}),
    ],
)
def test_greedy_generation(
    name: str,
    guidance: dict[str, object],
    generator: LlamaGen,
    codes_and_classes: tuple[torch.Tensor, torch.Tensor],
) -> None:
    golden = np.load(GOLDEN / "generator_B.npz")
    config = SamplingConfig(num_images=4, **guidance)
    classes_B = codes_and_classes[1]
    codes = generate(generator, classes_B, config, torch.Generator(), 24, greedy=True)
    assert (codes.numpy() == golden[f"greedy24_{name}"]).all()
