"""What a trial may combine: the 2D baseline, rotary positions, discriminators."""

from __future__ import annotations

import pytest

from gigatok.config import TrialConfig
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
            ("tokenizer.variant=2d", "data.image_size=4"),
            "data.image_size 4 over 4, the downsampling of tokenizer.cnn, gives a grid of a "
            "single cell",
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
