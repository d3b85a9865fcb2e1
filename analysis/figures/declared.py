"""The named figures of runs, each one declaration. Registered when this module is imported."""

from __future__ import annotations

from analysis.charts.grammar import TITLES
from analysis.figures.runs import PICTURES, PICTURES_TITLE, Panel, RunFigure, declare
from analysis.figures.settings import SCALE, STEP

_SIZE = "params_tokenizer"
_BY_SIZE = ("tokenizer_scaling", "decoder_scaling")
"""Sweeps over the size of the tokenizer."""
_SCORES = ("rfid", "gfid", "probe_accuracy")


def _over(x: str, *charts: str | tuple[str, str]) -> tuple[Panel, ...]:
    """Declare charts over one x: of metrics under their usual titles, or under another one."""
    named = ((y, TITLES[y]) if isinstance(y, str) else y for y in charts)
    return tuple(Panel(x, y, title) for y, title in named)


_FIGURES = (
    RunFigure(
        "dilemma",
        "Does a larger tokenizer reconstruct better and generate worse?",
        _BY_SIZE,
        _over(_SIZE, "rfid", "gfid", "ar_val_loss"),
    ),
    RunFigure(
        "cure",
        "Does semantic regularisation let a larger tokenizer do both better?",
        _BY_SIZE,
        (
            # Dilemma and cure are two directions in this plane.
            Panel("rfid", "gfid", "Both"),
            *_over(_SIZE, "rfid", "gfid", "ar_val_loss", "probe_accuracy"),
            Panel(_SIZE, "lpips|psnr", "Distortion"),
        ),
    ),
    RunFigure(
        "entropy",
        "What does entropy loss do to codebook usage over training?",
        ("entropy_loss",),
        (
            Panel(STEP, "train/codebook_usage", "Codebook usage"),
            Panel(STEP, "train/perceptual_loss", "Perceptual loss"),
            Panel("tokenizer.entropy_weight", "codebook_usage", "Usage at the end"),
        ),
    ),
    RunFigure("1d-2d", "1D or 2D latent tokens?", ("tokenizer_1d_vs_2d",), _over(_SIZE, *_SCORES)),
    RunFigure(
        "encoder-decoder",
        "Parameters in the encoder or in the decoder?",
        # Decoder scaling first: it varies one side alone, which is the question.
        ("decoder_scaling", "tokenizer_scaling"),
        _over(_SIZE, *_SCORES),
        front=True,
    ),
    RunFigure(
        "semantic-ablations",
        "Which layer to align, with which teacher, how strongly?",
        ("semantic_layer", "semantic_teacher", "semantic_weight"),
        tuple(
            Panel(f"tokenizer.{key}", metric, title)
            for key, title in (
                ("semantic_layer", "Layer"),
                ("teacher", "Teacher"),
                ("semantic_weight", "Weight"),
            )
            for metric in _SCORES
        ),
        # Three sweeps in one figure: each has results over its own key only.
        own_x=("tokenizer.semantic_layer", "tokenizer.teacher", "tokenizer.semantic_weight"),
    ),
    RunFigure(
        "generators",
        "What does a larger generator buy?",
        ("generator_scaling",),
        _over("params_generator", "gfid", "ar_val_loss", "probe_accuracy"),
    ),
    RunFigure(
        "probe-accuracy", "What did the generator learn?", _BY_SIZE, _over(_SIZE, "probe_accuracy")
    ),
    RunFigure(
        "latent-complexity",
        "How complex are the codes of larger tokenizers?",
        _BY_SIZE,
        _over(
            _SIZE,
            "ar_val_loss",
            ("ar_bits_per_image", "Bits of an image"),
            ("unigram_entropy", "Codes alone"),
            ("bigram_entropy", "Codes in pairs"),
            ("codebook_usage", "Codebook usage"),
            ("effective_rank", "Rank of the codes"),
        ),
    ),
    RunFigure(
        "training-duration",
        "What does longer tokenizer training buy? (the question of paper Figure 12)",
        ("training_duration",),
        _over("tokenizer.steps", "rfid", "gfid", "ar_val_loss", "probe_accuracy"),
        # The values of Figure 12 were not published: there are only runs for it (`absent.csv`).
        paper="figure12",
    ),
    RunFigure(
        "training-curves",
        "Training of the tokenizers",
        _BY_SIZE,
        _over(
            STEP,
            ("train/loss", "Loss"),
            ("train/reconstruction_loss", "Reconstruction loss"),
            ("train/codebook_usage", "Codebook usage"),
        ),
    ),
    RunFigure(
        "guidance-search",
        "Which guidance scale is best? (of samples that are used for nothing else)",
        ("decoder_scaling", "tokenizer_scaling", "tokenizer_1d_vs_2d", "generator_scaling"),
        _over(SCALE, ("guidance/gkid", "KID"), ("guidance/gfid", "FID")),
        # The search is a stage that is off by default, so that most sweeps have nothing to show.
        needs="best_cfg_scale",
        options=" --set guidance.search=grid",
    ),
    RunFigure(
        "image-grids",
        f"{PICTURES_TITLE}, by size",
        _BY_SIZE,
        pictures=PICTURES,
    ),
)

for _figure in _FIGURES:
    declare(_figure)
