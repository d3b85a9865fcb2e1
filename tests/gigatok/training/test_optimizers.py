"""Optimizers: which parameters they update, at which rates, and what they cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gigatok.config import GeneratorConfig, TrainingConfig, TransformerSize
from gigatok.costs.optimizers import optimizer_costs
from gigatok.models.generator.generator import LlamaGen
from gigatok.models.generator.layout import generator_layout
from gigatok.models.tokenizer.layout import tokenizer_layout
from gigatok.training.optimizers import make_optimizer, set_learning_rate
from tests.gigatok.counted_flops import SHAPES, SIDE, counted, tokenizer, training

MUON: dict[str, Any] = {"name": "muon"}
GPT = GeneratorConfig(
    size=TransformerSize(width=32, layers=2, heads=2),
    ffn_multiple_of=32,
    steps=4,
    batch_size=2,
    lr=1e-3,
    weight_decay=0.1,
    optimizer=MUON,  # type: ignore[arg-type]
)


def gpt() -> LlamaGen:
    torch.manual_seed(0)
    return LlamaGen(GPT, 50, 10, 16)


def loss_of(model: LlamaGen, step: int) -> torch.Tensor:
    codes = torch.arange(32).view(2, 16).roll(step) % 50
    return model(codes, codes[:, 0] % 10).float().logsumexp(-1).mean()


def test_muon_is_torchs_on_matrices_of_layers_and_adamw_elsewhere() -> None:
    ours, theirs = gpt().eval(), gpt().eval()
    optimizer = make_optimizer(ours, GPT)
    hidden = [p for name, p in theirs.named_parameters() if "layers." in name and p.ndim == 2]
    assert len(hidden) == 2 * 5  # q, k and v in one, output, and three of the SwiGLU
    rest = [p for p in theirs.parameters() if not any(p is h for h in hidden)]
    peers = (
        torch.optim.Muon(hidden, lr=0.02, weight_decay=0.1, momentum=0.95),
        torch.optim.AdamW(rest, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True),
    )
    for step, factor in enumerate((1.0, 0.5, 0.25)):
        set_learning_rate(optimizer, factor * GPT.lr)
        for peer, peak in zip(peers, (0.02, 1e-3), strict=True):
            peer.param_groups[0]["lr"] = factor * peak
            peer.zero_grad()
        optimizer.zero_grad()
        loss_of(ours, step).backward()
        loss_of(theirs, step).backward()
        optimizer.step()
        for peer in peers:
            peer.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_an_infinite_gradient_skips_the_step_of_all_parameters() -> None:
    model = gpt()
    optimizer = make_optimizer(model, GPT)
    scaler = torch.amp.GradScaler("cpu", enabled=True)
    before = [p.detach().clone() for p in model.parameters()]
    scaler.scale(loss_of(model, 0)).backward()
    matrix = next(iter(model.blocks[0].parameters()))
    assert matrix.grad is not None
    matrix.grad.fill_(float("inf"))
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert all(torch.equal(p, q) for p, q in zip(before, model.parameters(), strict=True))


def test_a_model_without_layers_is_left_to_adamw() -> None:
    config = TrainingConfig(steps=1, batch_size=1, lr=1e-3, optimizer=MUON)  # type: ignore[arg-type]
    optimizer = make_optimizer(torch.nn.Linear(3, 3), config)
    assert isinstance(optimizer, torch.optim.AdamW)


def moments(optimizer: torch.optim.Optimizer) -> int:
    state = optimizer.state.values()
    return sum(t.numel() for held in state for name, t in held.items() if name != "step")


@pytest.mark.parametrize("shape", [s for s in SHAPES if s.startswith(("1d", "2d"))])
def test_costs_of_muon_for_tokenizers(shape: str) -> None:
    config = training(shape, optimizer=MUON)
    model = tokenizer(config)
    check_costs(model, config, tokenizer_layout(config, SIDE).total)


def test_costs_of_muon_for_generators() -> None:
    with torch.device("meta"):
        model = LlamaGen(GPT, 50, 10, 16)
    check_costs(model, GPT, generator_layout(GPT, 50, 10, 16))


def check_costs(model: torch.nn.Module, config: TrainingConfig, layers: Any) -> None:
    optimizer = make_optimizer(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    costs = optimizer_costs(config, layers)
    assert costs.moments == moments(optimizer)
    # AdamW takes no matrix products; on the meta device its fused kernel does not run at all.
    (matrices, _) = optimizer.parts  # type: ignore[attr-defined]
    assert costs.flops == counted(matrices.step)
