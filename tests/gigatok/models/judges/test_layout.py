from __future__ import annotations

import torch

from gigatok.models.judges.dino import DINOSmall
from gigatok.models.judges.discriminators import DINODiscriminator, PatchGAN
from gigatok.models.judges.layout import judge_layout
from gigatok.models.layers import parameters


def test_parameters_of_patchgan() -> None:
    judge = judge_layout("patchgan", 32)
    assert judge.parameters == sum(p.numel() for p in PatchGAN().parameters())
    assert judge.frozen == ()


def test_parameters_of_the_dino_discriminator() -> None:
    with torch.device("meta"):
        backbone = DINOSmall()
        heads = DINODiscriminator(backbone)
    judge = judge_layout("dino", 256)
    assert judge.parameters == sum(p.numel() for p in heads.parameters())
    assert parameters(judge.frozen) == sum(p.numel() for p in backbone.parameters())
