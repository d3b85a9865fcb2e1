"""Every teacher keeps the contract, and the contract tells what a broken one does."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from gigatok.config.kinds.teachers import TEACHERS, TeacherCost, TeacherKind
from gigatok.contracts.teacher import broken_promises
from gigatok.models.frozen.teachers import Teacher, symmetric

FROM_HUB = ("dinov2", "clip_dfn", "siglip")
"""Gigabytes of the Hub; small networks of these kinds are in the tests of frozen networks."""
FETCHED = [name for name, kind in TEACHERS.items() if kind.assets and name not in FROM_HUB]


@pytest.mark.parametrize("name", [n for n in TEACHERS if n not in (*FETCHED, *FROM_HUB)])
def test_built_in_teachers_keep_it(name: str) -> None:
    assert broken_promises(TEACHERS[name]) == []


@pytest.mark.network
@pytest.mark.parametrize("name", FETCHED)
def test_fetched_teachers_keep_it(name: str) -> None:
    assert broken_promises(TEACHERS[name]) == []


class Cells(nn.Module):
    """A grid of 2 x 2 cells with 4 channels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 4, 8, 8)

    def forward(self, images: Tensor) -> Tensor:
        cells: Tensor = self.convolution(images)
        return cells


class Noisy(Cells):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + torch.randn(1)


class MixedUp(Cells):
    """Batch statistics, as of a batch norm that was not put into eval mode."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images - images.mean(0))


class Infinite(Cells):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) / 0


class Blind(Cells):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(torch.zeros_like(images))


class Long(Cells):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)[:, :, :1]


def drawn_anew() -> nn.Module:
    cells = Cells()
    random = torch.Generator()
    random.seed()
    nn.init.normal_(cells.convolution.weight, generator=random)
    return cells


def trained() -> Teacher:
    teacher = Teacher(nn.Sequential(Cells(), nn.Flatten(2)), symmetric, TeacherCost(4, 2, 16))
    teacher.network.requires_grad_(True)
    return teacher


def nothing() -> dict[str, Tensor]:
    return {}


def kind_of(build: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> TeacherKind:
    """Register a teacher whose cost is given: 2 x 2 cells of 4 channels from 16 pixels."""
    name = f"test_{build.__name__.lower()}"
    module = f"{__name__}:{build.__name__}"
    kind = TeacherKind(name, module, f"{__name__}:COST", side=16)
    monkeypatch.setitem(TEACHERS, name, kind)
    return kind


COST = TeacherCost(dim=4, grid=2, side=16, flops=2 * 4 * 4 * 3 * 64, parameters=4 * (3 * 64 + 1))
WRONG_COST = replace(COST, grid=3, flops=COST.flops + 1)


def test_a_callable_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert broken_promises(kind_of(Cells, monkeypatch)) == []


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (Noisy, "the same images have other features at the second time"),
        (drawn_anew, "a teacher that is built again gives other features"),
        (MixedUp, "an image has other features alone than in a batch"),
        (Infinite, "features are no finite floating-point numbers"),
        (Blind, "two images have the same features"),
        (Long, r"maps 2 images of 16 pixels to \(2, 4, 1, 2\); features must be \(2, D, G, G\)"),
        (trained, "its network can be trained"),
        (nothing, "its module gives a dict; it must give a Teacher, or a callable"),
    ],
)
def test_what_is_broken_is_named(
    build: Callable[[], object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = broken_promises(kind_of(build, monkeypatch))
    assert any(re.search(message, text) for text in found), found


def test_a_wrong_cost_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = replace(kind_of(Cells, monkeypatch), cost=f"{__name__}:WRONG_COST")
    monkeypatch.setitem(TEACHERS, kind.name, kind)
    found = "\n".join(broken_promises(kind))
    assert "its cost says dim, grid and side (4, 3, 16); the teacher has (4, 2, 16)" in found
    assert f"takes {COST.flops} FLOPs, its cost says {COST.flops + 1}" in found
