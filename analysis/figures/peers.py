"""Figures of the published numbers of others, beside the paper's: functions to a `Plate` each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from analysis.charts.grammar import Chart, Plate, Series, axis
from analysis.charts.style import CYCLE, OTHER
from analysis.figures.points import Axis
from analysis.figures.published_marks import mark, short
from analysis.paper.published import Fact, leaderboard, select

_BLUE, _ORANGE, _GREEN, _PURPLE, _VERMILION, _SKY, _BLACK = CYCLE


def systems() -> Plate:
    """Table 3 and Table 10: generation against size of the generator, and reconstruction."""
    kinds = {"KL": ("continuous (KL)", OTHER, "^"), "": ("discrete", _ORANGE, "o")}
    rows = _pairs(select("Table 3", metric="gfid"))
    own = _pairs([f for f in select("Table 10", metric="gfid") if f.tokenizer != "LlamaGen-Tok"])

    def series(over: str) -> tuple[Series, ...]:
        made = []
        for kind, (name, colour, shape) in kinds.items():
            mine = [(f, r) for f, r in rows if (f.quantizer == "KL") == (kind == "KL")]
            made.append(_scatter(name, mine, over, colour, shape))
        return (*made, _scatter("GigaTok (Table 10)", own, over, _BLUE, "s", labels=True))

    charts = (
        Chart(
            "Over the generator",
            axis("params_generator"),
            axis("gfid"),
            series("generator"),
            log_x=True,
            log_y=True,
        ),
        Chart(
            "Over reconstruction",
            axis("rfid"),
            axis("gfid"),
            series("rfid"),
            log_x=True,
            log_y=True,
        ),
    )
    return Plate(
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
    """Each gFID with the rFID of its tokenizer in the same table."""
    made = []
    for fact in found:
        same: dict[str, Any] = {"tokenizer": fact.tokenizer, "num_tokens": fact.num_tokens}
        made.append((fact, *select(fact.place, metric="rfid", **same)))
    assert all(len(pair) == 2 for pair in made), "one rFID a tokenizer"
    return [(first, second) for first, second in made]


def _scatter(
    name: str,
    rows: Sequence[tuple[Fact, Fact]],
    over: str,
    colour: str,
    shape: str,
    *,
    labels: bool = False,
) -> Series:
    marks = []
    for gfid, rfid in rows:
        across = rfid if over == "rfid" else gfid.generator_params_m or 0
        named = labels and over == "rfid" and gfid.generator_params_m == 111
        marks.append(mark(across, gfid, gfid.tokenizer.replace(" disc)", ")") * named))
    return Series(name, tuple(marks), colour, shape, joined=False)


def peers() -> Plate:
    """What others report about the same questions."""
    charts = (_others_generators(), _token_counts(), _encoders(), _remeasured())
    listed = [row for row in leaderboard() if row.metric == "inception_score"]
    text = "; ".join(f"IS {row.value:g} on {row.dataset}, {row.note}" for row in listed)
    return Plate(
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


def _line(name: str, found: Sequence[Fact], across: str, colour: str, shape: str) -> Series:
    marks = [mark(float(getattr(fact, across) or 0), fact) for fact in found]
    return Series(name, tuple(marks), colour, shape)


def _others_generators() -> Chart:
    kept: dict[str, Any] = {"metric": "gfid", "place": "README", "work": "llamagen"}
    looks = [("LlamaGen, 256 tokens", 256, OTHER, "o"), ("LlamaGen, 576 tokens", 576, OTHER, "^")]
    series = [
        _line(name, select(**kept, num_tokens=n), "generator_params_m", colour, shape)
        for name, n, colour, shape in looks
    ]
    for name, colour, shape in (("VQGAN baseline", _ORANGE, "o"), ("CRT", _VERMILION, "v")):
        found = select(work="crt", metric="gfid", tokenizer=name)
        label = f"{name} of CRT" if name != "CRT" else name
        series.append(_line(label, found, "generator_params_m", colour, shape))
    across = axis("params_generator")
    return Chart("Larger generators", across, axis("gfid"), tuple(series), log_x=True)


def _token_counts() -> Chart:
    series = []
    for name, words, colour in (("", "TiTok VQ", _PURPLE), ("VAE", "TiTok VAE", _SKY)):
        found = [
            fact
            for fact in select(work="titok", metric="rfid")
            if fact.tokenizer.endswith(" VAE") == bool(name)
        ]
        marks = tuple(
            mark(float(f.tokenizer.split()[0].rpartition("-")[2]), f, f.tokenizer.split("-")[1])
            for f in found
        )
        series.append(Series(words, marks, colour, "o", joined=False))
    return Chart(
        "Tokens of an image",
        axis("num_latent_tokens"),
        axis("rfid"),
        tuple(series),
        ticks=tuple((n, f"{n:g}") for n in (32.0, 64.0, 128.0, 256.0)),
        log_x=True,
    )


def _encoders() -> Chart:
    sizes = ("Small", "Base", "Large")
    series = []
    for name, colour, shape in (("VTP", _GREEN, "s"), ("RAE", _BLACK, "D")):
        found = [select("Table 3", "vtp", tokenizer=f"{name}-{size}")[0] for size in sizes]
        marks = tuple(mark(float(i), fact) for i, fact in enumerate(found))
        series.append(Series(name, marks, colour, shape))
    return Chart(
        "Larger encoders",
        Axis("encoder", "encoder"),
        axis("gfid"),
        tuple(series),
        ticks=tuple((float(i), size) for i, size in enumerate(sizes)),
    )


def _remeasured() -> Chart:
    """The paper's rFID against AToken's of the same checkpoints."""
    marks = []
    for tokenizer, size in (("B-L (DINO disc)", 622.0), ("XL-XXL", 2896.0)):
        here: dict[str, Any] = {"metric": "rfid", "setting": "data=ImageNet", "params_m": size}
        (theirs,) = select(work="atoken", **here)
        (ours,) = select("Table 10", metric="rfid", tokenizer=tokenizer)
        marks.append(mark(ours, theirs, tokenizer))
    series = Series("GigaTok by AToken", tuple(marks), _BLUE, "s", joined=False)
    return Chart(
        "GigaTok, measured again",
        Axis("rfid", "rFID in the paper ↓"),
        Axis("rfid", "rFID by AToken ↓"),
        (series,),
    )


FIGURES: dict[str, Callable[[], Plate]] = {"systems": systems, "peers": peers}
