"""Figures of the published numbers of others, beside the paper's: one function each."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.charts.grammar import Chart, FigureData, Series, axis
from analysis.charts.style import BLACK, GREEN, ORANGE, OTHER, PURPLE, SKY, VERMILION, WITH, Look
from analysis.figures.parts.marks import mark
from analysis.figures.parts.registry import published
from analysis.paper.published import Fact, leaderboard, one, select, short


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
        return (*made, _scatter("GigaTok (Table 10)", own, over, WITH))

    panels = {"params_generator": "Over the generator", "rfid": "Over reconstruction"}
    charts = tuple(Chart(words, axis(x), axis("gfid"), series(x)) for x, words in panels.items())
    title = "GigaTok among published systems on ImageNet at 256 px (paper Tables 3 and 10)"
    notes = (
        "Rows of others as quoted in Table 3; generators, guidance and token counts differ.",
        "gFID with LlamaGen-XXL (1400 M) is without guidance. Of systems of one name the best is "
        "named, where there is room.",
        *short(5, 7, 12),
    )
    return FigureData("systems", title, "published", charts, notes)


def _pairs(found: Sequence[Fact]) -> list[tuple[Fact, Fact]]:
    """Pair each gFID with the rFID of its tokenizer in the same table."""
    # An rFID belongs to a tokenizer at its number of tokens, whatever generator is trained on it.
    return [
        (f, one(f.place, "rfid", tokenizer=f.tokenizer, num_tokens=f.num_tokens)) for f in found
    ]


def _scatter(name: str, rows: Sequence[tuple[Fact, Fact]], over: str, look: Look) -> Series:
    """Mark every system, named by what its place on x is of: the tokenizer or the generator."""
    marks = []
    named: set[str] = set()
    # The best first, which has the name where several systems share it.
    for gfid, rfid in sorted(rows, key=lambda pair: pair[0].printed):
        across = rfid if over == "rfid" else gfid.generator_params_m or 0
        words = gfid.tokenizer if over == "rfid" else gfid.generator.partition(" ")[0]
        label = "" if words in named else words.replace(" disc)", ")")
        named.add(words)
        marks.append(mark(across, gfid, label))
    return Series(name, tuple(marks), look, joined=False)


@published("peers")
def peers() -> FigureData:
    """Show what others report about the same questions."""
    charts = (_others_generators(), _token_counts(), _encoders(), _remeasured())
    listed = [row for row in leaderboard() if row.metric == "inception_score"]
    text = "; ".join(f"IS {row.value:g} on {row.dataset}, {row.note}" for row in listed)
    title = (
        "Peers: larger generators, fewer tokens, larger encoders; and GigaTok measured by others"
    )
    notes = (
        "(a) LlamaGen: its README; CRT: arXiv 2412.16326. (b) TiTok's README. (c) VTP, RAE: "
        "LightningDiT, 80 epochs, no guidance. (d) rFID on ImageNet by AToken, whose PSNR and "
        "SSIM are defined otherwise.",
        f"A leaderboard lists {text}: the leaderboard's, not the paper's.",
    )
    return FigureData("peers", title, "published", charts, notes)


def _others_generators() -> Chart:
    # From LlamaGen's own README: the paper quotes some of these rows only.
    readme = select("README", "llamagen", metric="gfid")
    crt = select(work="crt", metric="gfid")
    lines = (
        ("LlamaGen, 256 tokens", Look(OTHER, "o"), [f for f in readme if f.num_tokens == 256]),
        ("LlamaGen, 576 tokens", Look(OTHER, "^"), [f for f in readme if f.num_tokens == 576]),
        *(
            (words, look, [fact for fact in crt if fact.tokenizer == name])
            for name, words, look in (
                ("VQGAN baseline", "VQGAN baseline of CRT", Look(ORANGE, "o")),
                ("CRT", "CRT", Look(VERMILION, "v")),
            )
        ),
    )
    series = tuple(
        Series(name, tuple(mark(fact.generator_params_m or 0.0, fact) for fact in found), look)
        for name, look, found in lines
    )
    return Chart("Larger generators", axis("params_generator"), axis("gfid"), series)


def _token_counts() -> Chart:
    series = []
    for name, colour, is_vae in (("TiTok VQ", PURPLE, False), ("TiTok VAE", SKY, True)):
        marks = []
        for fact in select(work="titok", metric="rfid"):
            if fact.tokenizer.endswith(" VAE") == is_vae:
                # Names say size and tokens, as in TiTok-L-32.
                _, size, tokens = fact.tokenizer.split()[0].split("-")
                marks.append(mark(float(tokens), fact, size))
        series.append(Series(name, tuple(marks), Look(colour, "o"), joined=False))
    ticks = tuple((n, f"{n:g}") for n in (32.0, 64.0, 128.0, 256.0))
    tokens_axis = axis("num_latent_tokens", ticks=ticks)
    return Chart("Tokens of an image", tokens_axis, axis("rfid"), tuple(series))


def _encoders() -> Chart:
    sizes = ("Small", "Base", "Large")
    series = []
    for name, look in (("VTP", Look(GREEN, "s")), ("RAE", Look(BLACK, "D"))):
        found = [select("Table 3", "vtp", tokenizer=f"{name}-{size}")[0] for size in sizes]
        marks = tuple(mark(float(i), fact) for i, fact in enumerate(found))
        series.append(Series(name, marks, look))
    ticks = tuple((float(i), size) for i, size in enumerate(sizes))
    return Chart("Larger encoders", axis("encoder", ticks=ticks), axis("gfid"), tuple(series))


def _remeasured() -> Chart:
    """Compare the paper's rFID with AToken's of the same checkpoints."""
    marks = []
    for tokenizer, size in (("B-L (DINO disc)", 622.0), ("XL-XXL", 2896.0)):
        # By size: AToken names the checkpoints otherwise.
        (theirs,) = select(work="atoken", metric="rfid", setting="data=ImageNet", params_m=size)
        marks.append(mark(one("Table 10", "rfid", tokenizer=tokenizer), theirs, tokenizer))
    series = Series("GigaTok by AToken", tuple(marks), WITH, joined=False)
    x, y = axis("rfid", "rFID in the paper"), axis("rfid", "rFID by AToken")
    return Chart("GigaTok, measured again", x, y, (series,))
