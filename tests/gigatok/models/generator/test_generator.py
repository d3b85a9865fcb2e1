import pytest
import torch
import torch.nn.functional as F

from gigatok.config import GeneratorArchitecture, TransformerSize
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.generator.layout import ffn_width, generator_parameters

CONFIG = GeneratorArchitecture(
    size=TransformerSize(width=32, layers=3, heads=4), dropout=0.1, ffn_multiple_of=32
)


def build(*, random_output: bool = True, **changes: object) -> LlamaGen:
    torch.manual_seed(0)
    generator = LlamaGen(CONFIG.model_copy(update=changes), 50, 10, 12)
    if random_output:  # zero at initialisation: every logit would be 0
        torch.nn.init.normal_(generator.output.weight)
    return generator.eval()


@pytest.fixture
def codes_BT() -> torch.Tensor:
    return torch.randint(50, (2, 12), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_cached_decoding_equals_the_full_forward(codes_BT: torch.Tensor) -> None:
    generator, classes_B = build(), torch.tensor([3, 10])
    cache = generator.allocate_cache(2)
    steps = [generator.first_logits(classes_B, cache)]
    for position in range(1, 12):
        steps.append(generator.next_logits(codes_BT[:, position - 1], position, cache))
    expected = generator(codes_BT, classes_B)
    torch.testing.assert_close(torch.stack(steps, dim=1), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_logits_depend_on_the_past_only(codes_BT: torch.Tensor) -> None:
    generator, classes_B = build(), torch.tensor([3, 4])
    changed = codes_BT.clone()
    changed[:, 5] = (changed[:, 5] + 1) % 50
    before, after = generator(codes_BT, classes_B), generator(changed, classes_B)
    torch.testing.assert_close(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6], after[:, 6])


@torch.no_grad()
def test_features_use_the_null_class_and_count_layers_from_1(codes_BT: torch.Tensor) -> None:
    generator = build()
    null_B = torch.full((2,), generator.null_class)
    features = generator.features(codes_BT, 3)
    torch.testing.assert_close(
        generator.output(generator.norm(features)), generator(codes_BT, null_B)
    )
    assert torch.equal(features, generator.features(codes_BT, 3, null_B))
    assert not torch.allclose(features, generator.features(codes_BT, 2))
    with pytest.raises(ValueError, match="layer 4 is not one of 1 to 3"):
        generator.features(codes_BT, 4)


def test_class_dropout_replaces_by_the_null_class(codes_BT: torch.Tensor) -> None:
    generator = build(class_dropout=1.0, dropout=0.0).train()
    null_B = torch.full((2,), generator.null_class)
    assert torch.equal(generator(codes_BT, torch.tensor([1, 2])), generator(codes_BT, null_B))
    keeping = build(class_dropout=0.0, dropout=0.0).train()
    assert not torch.equal(keeping(codes_BT, torch.tensor([1, 2])), keeping(codes_BT, null_B))


def test_dropout_is_active_in_training_only(codes_BT: torch.Tensor) -> None:
    generator, classes_B = build(class_dropout=0.0), torch.tensor([1, 2])
    assert torch.equal(generator(codes_BT, classes_B), generator(codes_BT, classes_B))
    generator.train()
    assert not torch.equal(generator(codes_BT, classes_B), generator(codes_BT, classes_B))


def test_initial_loss_is_uniform_and_falls(codes_BT: torch.Tensor) -> None:
    generator, classes_B = build(random_output=False).train(), torch.tensor([1, 2])
    optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = F.cross_entropy(generator(codes_BT, classes_B).flatten(0, 1), codes_BT.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(50.0).log().item(), abs=1e-5)
    assert losses[-1] < 0.7 * losses[0]


def test_checkpointing_changes_no_gradient(codes_BT: torch.Tensor) -> None:
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        generator = LlamaGen(CONFIG, 50, 10, 12, activation_checkpointing=recompute).train()
        torch.nn.init.normal_(generator.output.weight)
        torch.manual_seed(1)  # the dropouts must be replayed
        generator(codes_BT, torch.tensor([1, 2])).square().sum().backward()
        gradients.append(generator.layers[0].attention.wqkv.weight.grad)
    assert torch.equal(*gradients)


def test_feed_forward_widths() -> None:
    assert [ffn_width(width, 256) for width in (768, 1024, 1280, 1536)] == [2048, 2816, 3584, 4096]
    assert ffn_width(32, 32) == 96


def test_count_of_a_small_generator() -> None:
    count = sum(parameter.numel() for parameter in build().parameters())
    assert generator_parameters(CONFIG, 50, 10, 12) == count
