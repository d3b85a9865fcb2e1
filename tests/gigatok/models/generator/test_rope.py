"""Axial rotary positions against complex numbers, and the generator that uses them."""

from __future__ import annotations

import pytest
import torch

from gigatok.config import GeneratorArchitecture, SamplingConfig, TransformerSize
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.generator.layout import generator_parameters
from gigatok.models.generator.rope import axial_rotation, rotate
from gigatok.scores.sampling import generate

CONFIG = GeneratorArchitecture(
    size=TransformerSize(width=32, layers=3, heads=2), ffn_multiple_of=32, position="rope_2d"
)


def build(**changes: object) -> LlamaGen:
    torch.manual_seed(0)
    generator = LlamaGen(CONFIG.model_copy(update=changes), 50, 10, 16)
    torch.nn.init.normal_(generator.output.weight)
    for layer in generator.layers:
        torch.nn.init.normal_(layer.attention.wqkv.weight, std=0.3)
    return generator.eval()


@pytest.fixture
def codes_BT() -> torch.Tensor:
    return torch.randint(50, (2, 16), generator=torch.Generator().manual_seed(1))


def naive_rotate(x: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """One vector of a head, pair by pair, in complex numbers."""
    d = x.shape[-1]
    out = []
    for pair in range(d // 2):
        place, index = (row, pair) if pair < d // 4 else (column, pair - d // 4)
        angle = torch.tensor(place * 10_000 ** (-2 * index / (d / 2)))
        turned = torch.complex(x[2 * pair], x[2 * pair + 1]) * torch.polar(
            torch.tensor(1.0), angle
        )
        out += [turned.real, turned.imag]
    return torch.stack(out)


def test_rotation_by_row_and_column() -> None:
    x_BHTd = torch.randn(1, 1, 12, 16)
    rotation = axial_rotation(torch.arange(12), 4, 16)
    turned = rotate(x_BHTd, rotation)
    for t in range(12):
        expected = naive_rotate(x_BHTd[0, 0, t], *divmod(t, 4))
        torch.testing.assert_close(turned[0, 0, t], expected)


def test_scores_depend_on_the_difference_of_places_only() -> None:
    q, k = torch.randn(2, 16)

    def score(query: tuple[int, int], key: tuple[int, int]) -> torch.Tensor:
        places = torch.tensor([8 * row + column for row, column in (query, key)])
        turned = rotate(torch.stack([q, k]), axial_rotation(places, 8, 16))
        return turned[0] @ turned[1]

    torch.testing.assert_close(score((3, 5), (1, 2)), score((6, 4), (4, 1)))
    assert not torch.isclose(score((3, 5), (1, 2)), score((3, 5), (2, 1)))


def test_the_class_is_not_turned_and_with_the_quirk_zeroed() -> None:
    x = torch.randn(1, 16)
    place = torch.tensor([-1])
    assert torch.equal(rotate(x, axial_rotation(place, 4, 16)), x)
    assert torch.equal(rotate(x, axial_rotation(place, 4, 16, 0.0)), torch.zeros(1, 16))


def test_half_precision_is_kept_and_rotated_in_float32() -> None:
    x = torch.randn(3, 16).half()
    turned = rotate(x, axial_rotation(torch.arange(3), 4, 16))
    assert turned.dtype == torch.float16
    assert torch.equal(turned, rotate(x.float(), axial_rotation(torch.arange(3), 4, 16)).half())


@torch.no_grad()
@pytest.mark.parametrize("quirk", [False, True])
def test_cached_decoding_equals_the_full_forward(codes_BT: torch.Tensor, quirk: bool) -> None:
    generator, classes_B = build(reference_rope_quirk=quirk), torch.tensor([3, 10])
    cache = generator.allocate_cache(2)
    steps = [generator.first_logits(classes_B, cache)]
    for position in range(1, 16):
        steps.append(generator.next_logits(codes_BT[:, position - 1], position, cache))
    expected = generator(codes_BT, classes_B)
    torch.testing.assert_close(torch.stack(steps, dim=1), expected, atol=1e-4, rtol=1e-4)
    # The features of the last layer are those that the logits come from.
    features = generator.features(codes_BT, 3, classes_B)
    torch.testing.assert_close(generator.output(generator.norm(features)), expected)


@torch.no_grad()
def test_first_layer_equals_attention_written_out(codes_BT: torch.Tensor) -> None:
    """Input position 0 is the class, input position i + 1 is code i in the grid's row i // 4."""
    generator, classes_B = build(reference_rope_quirk=True), torch.tensor([3, 10])
    layer = generator.layers[0]
    x = torch.cat(
        [generator.cls_embedding(classes_B)[:, None], generator.tok_embeddings(codes_BT[:, :-1])],
        1,
    )
    q, k, v = layer.attention.wqkv(layer.attention_norm(x)).view(2, 16, 3, 2, 16).unbind(2)
    for part in (q, k):
        part[:, 0] = 0
        for batch in range(2):
            for position in range(1, 16):
                for head in range(2):
                    vector = part[batch, position, head]
                    part[batch, position, head] = naive_rotate(vector, *divmod(position - 1, 4))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 4
    scores = scores.masked_fill(torch.ones(16, 16).triu(1).bool(), -torch.inf)
    y = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2)
    h = x + layer.attention.wo(y)
    h = h + layer.feed_forward(layer.ffn_norm(h))
    torch.testing.assert_close(generator.features(codes_BT, 1, classes_B), h, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_quirk_makes_the_class_key_blind(codes_BT: torch.Tensor) -> None:
    classes_B = torch.tensor([3, 4])
    outputs = [build(reference_rope_quirk=quirk)(codes_BT, classes_B) for quirk in (False, True)]
    torch.testing.assert_close(outputs[0][:, 0], outputs[1][:, 0])  # the class sees itself alone
    assert not torch.allclose(outputs[0][:, 1:], outputs[1][:, 1:])


def test_sampling_works_with_guidance() -> None:
    config = SamplingConfig(num_images=4, cfg_scale=2.0)
    rng = torch.Generator().manual_seed(0)
    codes = generate(build(), torch.tensor([1, 2, 3]), config, rng)
    assert codes.shape == (3, 16)


def test_there_is_no_table_and_nothing_else_in_the_state_dict() -> None:
    generator = build()
    learned = LlamaGen(CONFIG.model_copy(update={"position": "learned"}), 50, 10, 16)
    assert learned.state_dict().keys() - generator.state_dict().keys() == {"positional_embedding"}
    count = sum(p.numel() for p in generator.parameters())
    assert generator_parameters(CONFIG, 50, 10, 16) == count


def test_a_model_built_without_memory_works_once_filled(codes_BT: torch.Tensor) -> None:
    generator, classes_B = build(), torch.tensor([1, 2])
    with torch.device("meta"):
        empty = LlamaGen(CONFIG, 50, 10, 16).eval()
    empty.load_state_dict(generator.state_dict(), assign=True)
    assert torch.equal(empty(codes_BT, classes_B), generator(codes_BT, classes_B))


def test_gradients_with_and_without_recomputation(codes_BT: torch.Tensor) -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        generator = LlamaGen(CONFIG, 50, 10, 16, activation_checkpointing=recompute)
        torch.nn.init.normal_(generator.output.weight)
        torch.manual_seed(1)
        generator(codes_BT, torch.tensor([1, 2])).square().sum().backward()
        gradients.append(generator.layers[0].attention.wqkv.weight.grad)
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


def test_what_has_no_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="a square number of codes, such as 9; there are 12"):
        LlamaGen(CONFIG, 50, 10, 12)
    narrow = CONFIG.model_copy(update={"size": TransformerSize(width=12, layers=1, heads=2)})
    with pytest.raises(ValueError, match="a multiple of 4; it is 6"):
        LlamaGen(narrow, 50, 10, 16)
