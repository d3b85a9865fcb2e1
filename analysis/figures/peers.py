"""Figures of the published numbers of others, beside the paper's: one function each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.charts.grammar import Chart, FigureData, Series, axis
from analysis.charts.style import (
    BLACK,
    GREEN,
    ORANGE,
    OTHER,
    PURPLE,
    SKY,
    VERMILION,
    WITH,
    Look,
)
from analysis.figures.published_marks import mark
from analysis.figures.registry import published
from analysis.paper.published import Fact, leaderboard, select, short


@published("systems")
def systems() -> FigureData:
    """Show Tables 3 and 10: generation against size of the generator, and reconstruction."""
    kinds = {"KL": ("continuous (KL)", Look(OTHER, "^")), "": ("discrete", Look(ORANGE, "o"))}
    rows = _pairs(select("Table 3", metric="gfid"))
    # Table 10 has LlamaGen's tokenizer as well, which is no GigaTok.
    own = _pairs([f for f in select("Table 10", metric="gfid") if f.tokenizer != "LlamaGen-Tok"])

    def series(over: str) -> tuple[Series, ...]:
        made = []
        for kind, (name, look) in kinds.items():
            # Continuous latents pay no quantisation loss: they are no peers in reconstruction.
            mine = [(f, r) for f, r in rows if (f.quantizer == "KL") == (kind == "KL")]
            made.append(_scatter(name, mine, over, look))
        return (*made, _scatter("GigaTok (Table 10)", own, over, WITH, labels=True))

    charts = (
        Chart(
            "Over the generator",
            axis("params_generator"),
            axis("gfid"),
            series("generator"),
        ),
        Chart(
            "Over reconstruction",
            axis("rfid"),
            axis("gfid"),
            series("rfid"),
        ),
    )
    return FigureData(
        "systems",
        "GigaTok among published systems on ImageNet at 256 px (paper Tables 3 and 10)",
        "published",
        charts,
        (
            "Rows of others as quoted in Table 3; generators, guidance and token counts differ.",
            "gFID with LlamaGen-XXL (1400 M) is without guidance.",
            *short(5, 7, 12),
        ),
    )


def _pairs(found: Sequence[Fact]) -> list[tuple[Fact, Fact]]:
    """Pair each gFID with the rFID of its tokenizer in the same table."""
    made = []
    for fact in found:
        # An rFID belongs to a tokenizer at its number of tokens, whatever generator is trained on
        # it.
        same: dict[str, Any] = {"tokenizer": fact.tokenizer, "num_tokens": fact.num_tokens}
        made.append((fact, *select(fact.place, metric="rfid", **same)))
    assert all(len(pair) == 2 for pair in made), "one rFID a tokenizer"
    return [(first, second) for first, second in made]


def _scatter(
    name: str,
    rows: Sequence[tuple[Fact, Fact]],
    over: str,
    look: Look,
    *,
    labels: bool = False,
) -> Series:
    marks = []
    for gfid, rfid in rows:
        across = rfid if over == "rfid" else gfid.generator_params_m or 0
        # One label a tokenizer: at the smallest generator, LlamaGen-B (111 M).
        named = labels and over == "rfid" and gfid.generator_params_m == 111
        marks.append(mark(across, gfid, gfid.tokenizer.replace(" disc)", ")") * named))
    return Series(name, tuple(marks), look, joined=False)


@published("peers")
def peers() -> FigureData:
    """Show what others report about the same questions."""
    charts = (_others_generators(), _token_counts(), _encoders(), _remeasured())
    listed = [row for row in leaderboard() if row.metric == "inception_score"]
    text = "; ".join(f"IS {row.value:g} on {row.dataset}, {row.note}" for row in listed)
    return FigureData(
        "peers",
        "Peers: larger generators, fewer tokens, larger encoders; and GigaTok measured by others",
        "published",
        charts,
        (
            "(a) LlamaGen: its README; CRT: arXiv 2412.16326. (b) TiTok's README. (c) VTP, RAE: "
            "LightningDiT, 80 epochs, no guidance. (d) rFID on ImageNet by AToken, whose PSNR and "
            "SSIM are defined otherwise.",
            f"A leaderboard lists {text}: the leaderboard's, not the paper's.",
        ),
    )


def _line(name: str, found: Sequence[Fact], look: Look) -> Series:
    marks = [mark(fact.generator_params_m or 0.0, fact) for fact in found]
    return Series(name, tuple(marks), look)


def _others_generators() -> Chart:
    # From LlamaGen's own README: the paper quotes some of these rows only.
    kept: dict[str, Any] = {"metric": "gfid", "place": "README", "work": "llamagen"}
    series = [
        _line(f"LlamaGen, {n} tokens", select(**kept, num_tokens=n), Look(OTHER, marker))
        for n, marker in ((256, "o"), (576, "^"))
    ]
    for name, look in (("VQGAN baseline", Look(ORANGE, "o")), ("CRT", Look(VERMILION, "v"))):
        found = select(work="crt", metric="gfid", tokenizer=name)
        label = f"{name} of CRT" if name != "CRT" else name
        series.append(_line(label, found, look))
    across = axis("params_generator")
    return Chart("Larger generators", across, axis("gfid"), tuple(series))


def _token_counts() -> Chart:
    series = []
    for name, words, colour in (("", "TiTok VQ", PURPLE), ("VAE", "TiTok VAE", SKY)):
        found = [
            fact
            for fact in select(work="titok", metric="rfid")
            if fact.tokenizer.endswith(" VAE") == bool(name)
        ]
        marks = tuple(
            # Names say size and tokens, as in TiTok-L-32.
            mark(float(f.tokenizer.split()[0].rpartition("-")[2]), f, f.tokenizer.split("-")[1])
            for f in found
        )
        series.append(Series(words, marks, Look(colour, "o"), joined=False))
    return Chart(
        "Tokens of an image",
        axis("num_latent_tokens", ticks=tuple((n, f"{n:g}") for n in (32.0, 64.0, 128.0, 256.0))),
        axis("rfid"),
        tuple(series),
    )


def _encoders() -> Chart:
    sizes = ("Small", "Base", "Large")
    series = []
    for name, look in (("VTP", Look(GREEN, "s")), ("RAE", Look(BLACK, "D"))):
        found = [select("Table 3", "vtp", tokenizer=f"{name}-{size}")[0] for size in sizes]
        marks = tuple(mark(float(i), fact) for i, fact in enumerate(found))
        series.append(Series(name, marks, look))
    return Chart(
        "Larger encoders",
        axis("encoder", ticks=tuple((float(i), size) for i, size in enumerate(sizes))),
        axis("gfid"),
        tuple(series),
    )


def _remeasured() -> Chart:
    """Compare the paper's rFID with AToken's of the same checkpoints."""
    marks = []
    for tokenizer, size in (("B-L (DINO disc)", 622.0), ("XL-XXL", 2896.0)):
        here: dict[str, Any] = {"metric": "rfid", "setting": "data=ImageNet", "params_m": size}
        # By size: AToken names the checkpoints otherwise.
        (theirs,) = select(work="atoken", **here)
        (ours,) = select("Table 10", metric="rfid", tokenizer=tokenizer)
        marks.append(mark(ours, theirs, tokenizer))
    series = Series("GigaTok by AToken", tuple(marks), WITH, joined=False)
    return Chart(
        "GigaTok, measured again",
        axis("rfid", "rFID in the paper"),
        axis("rfid", "rFID by AToken"),
        (series,),
    )
