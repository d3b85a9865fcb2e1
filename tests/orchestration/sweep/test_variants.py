"""What a trial may combine: the 2D baseline, rotary positions, discriminators."""

from __future__ import annotations

import pytest

from gigatok.config import TrialConfig
from gigatok.models.generator.generator import LlamaGen
from orchestration.launching.preview import parameters_json
from orchestration.plan.graph import make_plan
from orchestration.sweep.definition import SweepError, expand, load_sweep


def trial(*overrides: str) -> TrialConfig:
    sweep = load_sweep("decoder_scaling", "smoke", ("tokenizer.decoder=S", *overrides))
    return expand(sweep).trials[0].config


def test_tokens_of_either_variant() -> None:
    assert trial().tokenizer.tokens_per_image(16) == 8
    assert trial("tokenizer.variant=2d").tokenizer.tokens_per_image(16) == 16
    # Of no meaning in 2D, so not checked there.
    assert trial("tokenizer.variant=2d", "tokenizer.num_latent_tokens=9")


def test_the_plan_counts_the_positions_of_the_variant() -> None:
    counts = []
    for variant in ("1d", "2d"):
        sweep = load_sweep(
            "decoder_scaling", "smoke", ("tokenizer.decoder=S", f"tokenizer.variant={variant}")
        )
        planned = make_plan(sweep, expand(sweep)).trials[0]
        counts.append(parameters_json(planned)["generator"])
    width = trial().generator.size.width
    assert counts[1] - counts[0] == (16 - 8) * width


def test_the_plan_counts_the_codes_of_the_quantizer() -> None:
    overrides = "tokenizer.decoder=S", "tokenizer.quantizer={name: rvq, depth: 3}"
    sweep = load_sweep("decoder_scaling", "smoke", (*overrides, "tokenizer.codebook_size=16"))
    config = expand(sweep).trials[0].config
    counted = parameters_json(make_plan(sweep, expand(sweep)).trials[0])
    generator = LlamaGen(config.generator, 16, 10, 8 * 3)
    assert counted["generator"] == sum(p.numel() for p in generator.parameters())
    assert counted["codebook"] == 3 * 16 * 8


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("generator.position=rope_2d",),
            "generator.position rope_2d needs a square of tokens; the tokenizer has 8",
        ),
        (
            ("tokenizer.discriminator=patchgan",),
            "tokenizer.discriminator patchgan needs images of 24 pixels or more; "
            "data.image_size is 16",
        ),
        (
            ("tokenizer.perceptual_weight=1", "tokenizer.perceptual_network=alex"),
            "tokenizer.perceptual_network alex needs images of 31 pixels or more; data.image_size "
            "is 16: give larger images, another network, or tokenizer.perceptual_weight 0",
        ),
        (
            ("evaluation.lpips_network=vgg", "data.image_size=8"),
            "evaluation.lpips_network vgg needs images of 16 pixels or more; data.image_size is "
            "8: give larger images, another network, or none",
        ),
        (
            ("tokenizer.variant=2d", "data.image_size=4"),
            "data.image_size 4 over 4, the downsampling of tokenizer.cnn, gives a grid of a "
            "single cell",
        ),
        (
            ("tokenizer.quantizer={name: bsq, bits: 25}",),
            "tokenizer.quantizer bsq-25 has 33,554,432 codes; the AR probe holds at most "
            "1,048,576. Use fewer bits or levels",
        ),
        (
            (
                *("tokenizer.quantizer={name: rvq, depth: 2}", "generator.position=rope_2d"),
                "tokenizer.variant=2d",
            ),
            "generator.position rope_2d needs one code per token; tokenizer.quantizer rvq-2 "
            "makes 2: take position learned",
        ),
        (("tokenizer.variant=3d",), "got '3d'; must be one of '1d', '2d'"),
    ],
)
def test_what_does_not_fit_is_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(SweepError) as caught:
        trial(*overrides)
    assert any(message in str(problem) for problem in caught.value.problems)


def test_what_fits_is_accepted() -> None:
    trial("tokenizer.variant=2d", "generator.position=rope_2d")
    trial("tokenizer.discriminator=dino")
    trial("tokenizer.discriminator=patchgan", "data.image_size=24", "tokenizer.variant=2d")
